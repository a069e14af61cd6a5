//! `man`: the manual pages of section 1, from the definition of the command line.

use std::path::Path;

use clap::CommandFactory as _;

use super::args::Args;
use super::failure::{Failure, io_failure};

/// The page of the program to standard output; or with a directory, all pages, one for each command.
pub(super) fn run(directory: Option<&Path>) -> Result<(), Failure> {
    let command = Args::command().disable_help_subcommand(true);
    let Some(directory) = directory else {
        let page = clap_mangen::Man::new(command).manual(MANUAL);
        return page.render(&mut std::io::stdout()).map_err(io_failure("cannot write"));
    };
    let mut command = command;
    command.build();
    write(&command, directory).map_err(io_failure("cannot write man pages"))
}

const MANUAL: &str = "spa-client manual";

fn write(command: &clap::Command, directory: &Path) -> std::io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write(command, directory)?;
    }
    // Of the program's version, also where the page is a command's, which has none of its own.
    let source = concat!("spa-client ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command.clone()).manual(MANUAL).source(source).generate_to(directory).map(drop)
}
