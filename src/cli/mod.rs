//! The command line: every option with its default and its reason.
//!
//! What comes out of [`Cli::parse_checked`] is complete and consistent; whoever starts the processes checks nothing
//! again.

mod args;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

pub use args::{CommonArgs, ControllerArgs, DrainArgs, InstallationArgs, RelayArgs, host_name};

/// Makes AWS SSM Session Manager sessions a Kubernetes resource.
#[derive(Clone, Debug, Parser)]
#[command(name = "ssm-session-operator", version, max_term_width = 100)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The processes of one binary.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Decides: binds listeners to relays, owns Services and EndpointSlices, mirrors AWS into status. Moves no bytes
    Controller {
        /// Options of every process.
        #[command(flatten)]
        common: Box<CommonArgs>,
        /// Options of the controller.
        #[command(flatten)]
        controller: ControllerArgs,
    },
    /// Moves bytes: serves the listeners that the controller binds to it
    Relay {
        /// Options of every process.
        #[command(flatten)]
        common: Box<CommonArgs>,
        /// Options of the relay.
        #[command(flatten)]
        relay: Box<RelayArgs>,
    },
    /// Controller and one relay in one process, for small clusters; they talk only through SsmListener objects
    AllInOne {
        /// Options of every process.
        #[command(flatten)]
        common: Box<CommonArgs>,
        /// Options of the controller.
        #[command(flatten)]
        controller: ControllerArgs,
        /// Options of the relay.
        #[command(flatten)]
        relay: Box<RelayArgs>,
    },
    /// Has the controllers end every listener and let every SsmSession go, and waits until they have: what is to be done
    /// before the operator is uninstalled. SsmSessions and classes stay
    Drain {
        /// Which installation is to drain, and how the drain logs.
        #[command(flatten)]
        installation: InstallationArgs,
        /// Options of a drain.
        #[command(flatten)]
        drain: DrainArgs,
    },
    /// Writes the CustomResourceDefinitions as YAML
    Crds {
        /// Directory for one file each; without it they go to standard output
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

impl Cli {
    /// The options of this process; prints what is wrong with them, or the help, and exits.
    #[must_use]
    pub fn parse_checked() -> Self {
        Self::try_parse_checked(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// The options in `arguments`, the program's name first.
    ///
    /// # Errors
    /// What is wrong with them, for the terminal.
    pub fn try_parse_checked<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let mut cli = Self::try_parse_from(arguments)?;
        let checked = match &mut cli.command {
            Command::Controller { common, controller } => {
                common.check().and_then(|()| controller.check(common))
            }
            Command::Relay { common, relay } => {
                common.check().and_then(|()| relay.complete(common))
            }
            Command::AllInOne {
                common,
                controller,
                relay,
            } => common
                .check()
                .and_then(|()| controller.check(common))
                .and_then(|()| relay.complete(common)),
            Command::Drain {
                installation,
                drain,
            } => installation.check().and_then(|()| drain.check()),
            Command::Crds { dir: _ } => Ok(()),
        };
        checked
            .map(|()| cli)
            .map_err(|words| Self::command().error(ErrorKind::ValueValidation, words))
    }
}
