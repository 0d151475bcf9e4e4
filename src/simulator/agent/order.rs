//! What the agent is told to do: the payload that starts a session.

use serde::Deserialize;

/// What a session is for, in the document's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionType {
    Port,
    Shell,
}

impl SessionType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Port => "Port",
            Self::Shell => "Standard_Stream",
        }
    }
}

/// A session to run.
pub(super) struct Order {
    pub(super) session: String,
    pub(super) session_type: SessionType,
    pub(super) properties: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InteractiveShell {
    content: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    session_id: String,
    document_content: DocumentContent,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentContent {
    schema_version: String,
    session_type: String,
    #[serde(default)]
    properties: serde_json::Value,
}

impl Order {
    /// Reads the payload of `interactive_shell`: JSON with a string of JSON in it.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        let shell: InteractiveShell =
            serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let content: Content =
            serde_json::from_str(&shell.content).map_err(|error| error.to_string())?;
        let document = content.document_content;
        if document.schema_version != "1.0" {
            return Err(format!(
                "schema version {} is not 1.0",
                document.schema_version
            ));
        }
        let session_type = [SessionType::Port, SessionType::Shell]
            .into_iter()
            .find(|known| known.as_str() == document.session_type)
            .ok_or_else(|| format!("session type {} is not served", document.session_type))?;
        Ok(Self {
            session: content.session_id,
            session_type,
            properties: document.properties,
        })
    }
}
