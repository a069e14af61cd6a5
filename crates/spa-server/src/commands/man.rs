//! `man`: the manual pages of section 8, from the definition of the command line.

use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::error::{Exit, Failure, Outcome};

/// The page of the program to standard output; or with a directory, all pages, one for each command.
pub(super) fn run(directory: Option<&Path>) -> Outcome {
    let failed = |error| Failure::new(Exit::Io, format_args!("cannot write the manual page: {error}"));
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    match directory {
        Some(directory) => write_pages(&command, directory).map_err(failed),
        None => write_page(&command, &mut std::io::stdout()).map_err(failed),
    }
}

fn write_pages(command: &clap::Command, directory: &Path) -> std::io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(command, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut file = std::fs::File::create(directory.join(format!("{name}.8")))?;
    write_page(command, &mut file)
}

/// As `clap_mangen::Man::render` does; but the title keeps its place for a date, and examples keep their lines.
fn write_page(command: &clap::Command, to: &mut dyn std::io::Write) -> std::io::Result<()> {
    use clap_mangen::roff::{Roff, roman};
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let version = concat!("spa-server ", env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(command.clone()).section("8");
    // Without a date: the pages are the same whenever they are made.
    writeln!(to, ".TH \"{name}\" \"8\" \"\" \"{version}\" \"spa-server manual\"")?;
    page.render_name_section(to)?;
    page.render_synopsis_section(to)?;
    page.render_description_section(to)?;
    page.render_options_section(to)?;
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        page.render_subcommands_section(to)?;
    }
    let Some(notes) = command.get_after_help() else { return Ok(()) };
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES AND NOTES"]).control("nf", []);
    for line in notes.to_string().lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.to_writer(to)
}
