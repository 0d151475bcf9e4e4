//! The session documents that are known, what their parameters may be, and what the agent is told.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::data_channel::gateway_message;
use super::error::ApiError;
use crate::protocol::message::MessageType;

/// A session document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document {
    PortForwarding,
    PortForwardingToRemoteHost,
    Ssh,
    Shell,
}

/// What `StartSession` without a document starts.
pub(super) const DEFAULT_DOCUMENT: &str = "SSM-SessionManagerRunShell";

impl Document {
    /// The document of that name.
    ///
    /// # Errors
    /// `InvalidDocument` for all others.
    pub(super) fn named(name: &str) -> Result<Self, ApiError> {
        match name {
            "AWS-StartPortForwardingSession" => Ok(Self::PortForwarding),
            "AWS-StartPortForwardingSessionToRemoteHost" => Ok(Self::PortForwardingToRemoteHost),
            "AWS-StartSSHSession" => Ok(Self::Ssh),
            DEFAULT_DOCUMENT => Ok(Self::Shell),
            _ => {
                let text = format!("Document with name {name} does not exist.");
                Err(ApiError::new("InvalidDocument", text))
            }
        }
    }

    fn session_type(self) -> &'static str {
        match self {
            Self::PortForwarding | Self::PortForwardingToRemoteHost | Self::Ssh => "Port",
            Self::Shell => "Standard_Stream",
        }
    }

    /// Parameters and their defaults.
    fn parameters(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::PortForwarding => &[("portNumber", "80"), ("localPortNumber", "0")],
            Self::PortForwardingToRemoteHost => &[
                ("host", "localhost"),
                ("portNumber", "80"),
                ("localPortNumber", "0"),
            ],
            Self::Ssh => &[("portNumber", "22")],
            Self::Shell => &[],
        }
    }

    /// The properties that the agent gets: parameters as requested, defaults filled in.
    ///
    /// # Errors
    /// `ValidationException` for unknown parameters, anything but one value, and bad ports. The code
    /// is a choice: AWS documents none.
    pub(super) fn properties(
        self,
        requested: &BTreeMap<String, Vec<String>>,
    ) -> Result<Value, ApiError> {
        let known = self.parameters();
        if let Some(name) = requested
            .keys()
            .find(|name| known.iter().all(|(k, _)| k != name))
        {
            return Err(ApiError::validation(format!(
                "the document has no parameter {name}"
            )));
        }
        let mut properties = serde_json::Map::new();
        for (name, default) in known {
            let value = match requested.get(*name).map(Vec::as_slice) {
                None => *default,
                Some([value]) => value,
                Some(_) => {
                    let text = format!("parameter {name} must have one value");
                    return Err(ApiError::validation(text));
                }
            };
            let lowest_port = u16::from(*name == "portNumber");
            let is_port = value.parse::<u16>().is_ok_and(|port| port >= lowest_port);
            if *name != "host" && !is_port {
                return Err(ApiError::validation(format!(
                    "parameter {name} is not a port"
                )));
            }
            properties.insert((*name).to_owned(), Value::from(value));
        }
        match self {
            Self::PortForwarding | Self::PortForwardingToRemoteHost => {
                properties.insert("type".to_owned(), Value::from("LocalPortForwarding"));
            }
            Self::Ssh | Self::Shell => {}
        }
        Ok(Value::Object(properties))
    }
}

/// What one session is told to the agent with.
pub(super) struct Order<'a> {
    pub(super) session: &'a str,
    pub(super) document_name: &'a str,
    pub(super) document: Document,
    pub(super) properties: &'a Value,
    pub(super) owner_arn: &'a str,
}

impl Order<'_> {
    /// The `interactive_shell` message for the agent's control channel.
    pub(super) fn message(&self) -> Bytes {
        let content = json!({
            "DocumentName": self.document_name,
            "SessionId": self.session,
            "Parameters": {},
            "RunAsUser": "",
            "SessionOwner": self.owner_arn,
            "DocumentContent": {
                "schemaVersion": "1.0",
                "description": self.document_name,
                "sessionType": self.document.session_type(),
                "inputs": {
                    "s3BucketName": "", "s3KeyPrefix": "", "s3EncryptionEnabled": false,
                    "cloudWatchLogGroupName": "", "cloudWatchStreamingEnabled": false,
                    "cloudWatchEncryptionEnabled": false, "kmsKeyId": "",
                    "runAsEnabled": false, "runAsDefaultUser": "",
                    "shellProfile": { "windows": "", "linux": "" },
                },
                "parameters": {},
                "properties": self.properties,
            },
        });
        let payload = json!({
            "Content": content.to_string(),
            "TaskId": self.session,
            "Topic": "interactive_shell",
            "SchemaVersion": 1,
        });
        gateway_message(MessageType::InteractiveShell, Uuid::new_v4(), &payload)
    }
}
