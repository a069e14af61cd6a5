//! The QR code on the screen, read back by another program.

use std::process::Command;

use spa_tests::{Family, Server, Settings, Terminal, Topology, Variant, in_namespace, skip, succeeded};

/// Pixels to a module.
const SCALE: usize = 6;

/// A screen's half blocks as modules, true for dark.
fn modules(lines: &[String], blocks_are_dark: bool) -> Vec<Vec<bool>> {
    let mut rows = Vec::new();
    for line in lines {
        for upper in [true, false] {
            let dark = |character: char| {
                let block = match character {
                    '\u{2588}' => true,
                    '\u{2580}' => upper,
                    '\u{2584}' => !upper,
                    ' ' => false,
                    other => panic!("{other:?} in a QR code"),
                };
                block == blocks_are_dark
            };
            rows.push(line.chars().map(dark).collect());
        }
    }
    rows
}

/// What zbarimg reads in it.
fn decoded(rows: &[Vec<bool>]) -> String {
    let (width, height) = (rows[0].len() * SCALE, rows.len() * SCALE);
    let mut image = format!("P5\n{width} {height}\n255\n").into_bytes();
    for row in rows {
        let pixels: Vec<u8> = row.iter().flat_map(|dark| [if *dark { 0 } else { 255 }; SCALE]).collect();
        image.extend(std::iter::repeat_n(pixels, SCALE).flatten());
    }
    let path = std::path::Path::new(spa_tests::WORK).join("screen.pgm");
    std::fs::write(&path, image).unwrap();
    let output =
        Command::new("zbarimg").args(["--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"]).arg(path).output();
    succeeded("zbarimg", &output.unwrap())
}

fn is_code(line: &str) -> bool {
    line.contains(['\u{2580}', '\u{2584}', '\u{2588}'])
}

#[test]
fn the_code_on_the_screen_is_the_invite() {
    if Command::new("zbarimg").arg("--version").output().is_err() {
        return skip("qr::the_code_on_the_screen_is_the_invite", "zbarimg is not installed");
    }
    in_namespace(|| {
        let topology = Topology::new();
        let server = Server::new(&topology, &Settings::new(Variant::Nft));
        let address = topology.server.address(Family::V6).to_string();
        let add =
            |name: &'static str| ["client", "add", name, "--allow", "ssh,web", "--host", &address, "--qr"];
        // Into a pipe: no colours, light modules drawn, and the line alone on standard output.
        let output = server.call(&add("alice"));
        let invite = succeeded("client add --qr", &output);
        assert_eq!(invite.lines().count(), 1);
        let shown = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<String> = shown.lines().filter(|line| is_code(line)).map(str::to_owned).collect();
        eprintln!(
            "{} characters: {} columns, {} rows",
            invite.trim().len(),
            lines[0].chars().count(),
            lines.len()
        );
        assert!(lines[0].chars().count() <= 80);
        assert_eq!(decoded(&modules(&lines, false)).trim(), invite.trim());
        // On a terminal, black on white; too small a one is said.
        for (rows, fits) in [(60, true), (24, false)] {
            let name = if fits { "bob" } else { "carol" };
            let mut terminal = Terminal::start(&server.command(&add(name)), 80, rows);
            terminal.expect(&format!("enrolled {name}"));
            assert!(terminal.wait().success());
            let screen = terminal.screen();
            let code = |line: &str| {
                let line = line.strip_prefix("\x1b[30;107m")?.strip_suffix("\x1b[0m")?;
                Some(line.to_owned())
            };
            let lines: Vec<String> = screen.lines().filter_map(code).collect();
            let invite = screen.lines().find(|line| line.starts_with("spa1-")).unwrap();
            assert_eq!(decoded(&modules(&lines, true)).trim(), invite);
            assert_eq!(screen.contains("this terminal has 80 columns and 24 rows"), !fits, "{screen}");
        }
        let mut plain = server.command(&add("dave"));
        plain.env("NO_COLOR", "1");
        let mut terminal = Terminal::start(&plain, 80, 60);
        terminal.expect("enrolled dave");
        assert!(!terminal.screen().contains('\x1b'), "NO_COLOR");
    });
}
