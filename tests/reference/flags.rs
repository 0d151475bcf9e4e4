//! What the command line takes: each command, and each option once, under the commands that take it.

use clap::builder::PossibleValue;
use clap::{Arg, Command, CommandFactory};
use ssm_session_operator::cli::Cli;

use crate::page;
use crate::page::{code, codes, prose, table};

const ABOUT: &str = "What `ssm-session-operator` takes. An option that is given counts more than its environment variable.";

pub fn page() -> String {
    let command = Cli::command();
    let mut sections = vec![commands(&command)];
    sections.extend(groups(&command).iter().map(options));
    page::page("Commands and flags", ABOUT, &sections)
}

fn commands(command: &Command) -> String {
    let row = |command: &Command| {
        let about = command.get_about().map(ToString::to_string);
        [code(command.get_name()), prose(&about.unwrap_or_default())]
    };
    let rows: Vec<_> = command.get_subcommands().map(row).collect();
    table(["Command", "What it does"], &rows)
}

/// Options that the same commands take.
struct Group<'a> {
    commands: Vec<&'a str>,
    options: Vec<&'a Arg>,
}

fn groups(command: &Command) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let takers = |option: &Arg| {
        let takes = |command: &&Command| command.get_arguments().any(|other| other == option);
        let takers = command.get_subcommands().filter(takes);
        takers.map(Command::get_name).collect::<Vec<_>>()
    };
    for option in command.get_subcommands().flat_map(Command::get_arguments) {
        let commands = takers(option);
        match groups.iter_mut().find(|group| group.commands == commands) {
            Some(group) if group.options.contains(&option) => {}
            Some(group) => group.options.push(option),
            None => groups.push(Group {
                commands,
                options: vec![option],
            }),
        }
    }
    groups
}

fn options(group: &Group<'_>) -> String {
    let rows: Vec<_> = group.options.iter().map(|option| row(option)).collect();
    let table = table(["Option", "Environment", "Default", "Meaning"], &rows);
    format!("## {}\n\n{table}", codes(&group.commands))
}

fn row(option: &Arg) -> [String; 4] {
    let takes_value = option.get_action().takes_values();
    let long = option.get_long().expect("no option is known by its place");
    let mut written = format!("--{long}");
    if takes_value {
        let names = option.get_value_names().unwrap_or_default();
        written.extend(names.iter().map(|name| format!(" <{name}>")));
    }
    let variable = option.get_env().map(|name| code(&name.to_string_lossy()));
    let default = if !takes_value || option.is_hide_default_value_set() {
        String::new()
    } else if option.is_required_set() {
        "required".to_owned()
    } else {
        codes(
            option
                .get_default_values()
                .iter()
                .map(|value| value.to_string_lossy()),
        )
    };
    let mut meaning = prose(
        &option
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
    let values = option.get_possible_values();
    if takes_value && !values.is_empty() {
        let names = values.iter().map(PossibleValue::get_name);
        meaning = format!("{meaning}: {}", codes(names));
    }
    [
        code(&written),
        variable.unwrap_or_default(),
        default,
        meaning,
    ]
}
