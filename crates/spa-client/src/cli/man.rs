//! `man`: the manual pages of section 1, from the definition of the command line.

use std::path::Path;

use clap::CommandFactory as _;

use super::args::Args;
use super::failure::{Failure, io_failure};

/// The page of the program to standard output; or with a directory, all pages, one for each command.
pub(super) fn run(directory: Option<&Path>) -> Result<(), Failure> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    match directory {
        Some(directory) => write_pages(&command, directory).map_err(io_failure("cannot write man pages")),
        None => write_page(&command, &mut std::io::stdout()).map_err(io_failure("cannot write")),
    }
}

fn write_pages(command: &clap::Command, directory: &Path) -> std::io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(command, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut file = std::fs::File::create(directory.join(format!("{name}.1")))?;
    write_page(command, &mut file)
}

/// As `clap_mangen::Man::render` does; but the title keeps its place for a date, and examples keep their lines.
fn write_page(command: &clap::Command, to: &mut dyn std::io::Write) -> std::io::Result<()> {
    use clap_mangen::roff::{Roff, roman};
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let version = concat!("spa-client ", env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(command.clone());
    // Without a date: the pages are the same whenever they are made.
    writeln!(to, ".TH \"{name}\" \"1\" \"\" \"{version}\" \"spa-client manual\"")?;
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
