//! The program; everything is in the library.

use std::process::ExitCode;

use ssm_session_operator::{cli::Cli, operator};

fn main() -> ExitCode {
    operator::main(Cli::parse_checked())
}
