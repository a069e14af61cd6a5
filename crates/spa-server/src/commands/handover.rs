//! How an invite leaves the server: with an expiry, encrypted with a passphrase, as a QR code beside the line.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use qrcode::{Color, EcLevel, QrCode};
use spa_proto::{Invite, SEAL_SALT_LENGTH, SealedInvite, WORK};
use zeroize::Zeroizing;

use super::keygen::random;
use super::print;
use crate::cli::InviteArgs;
use crate::clock;
use crate::config::date::Date;
use crate::error::{Exit, Failure, Outcome};
use crate::log::say;
use crate::{files, terminal};

/// Shortest passphrase, in characters. Whoever gets hold of the line can try passphrases without limit, some ten a
/// second on one processor.
const MIN_PASSPHRASE: usize = 8;
/// Light modules around a QR code. The standard wants 4; readers are content with 2, and a screen has few lines.
const QUIET_ZONE: i32 = 2;
/// Black on white, whatever the colours of the terminal are; and back.
const BLACK_ON_WHITE: &str = "\x1b[30;107m";
const USUAL_COLOURS: &str = "\x1b[0m";

/// What was asked for, with the passphrase at hand: made before anything is written.
pub struct Handover {
    qr: bool,
    passphrase: Option<Zeroizing<String>>,
    /// When the invite expires.
    pub expires: Option<Date>,
}

impl Handover {
    /// Reads or asks for the passphrase, and fixes the expiry.
    ///
    /// # Errors
    /// No terminal, an unreadable file, a passphrase that is too short, an expiry that is over.
    pub fn prepare(options: &InviteArgs) -> Outcome<Self> {
        let now = clock::now().wall / spa_proto::NANOS_PER_SECOND;
        let expires = options.invite_expires.map(|expiry| expiry.at(now));
        if let Some(date) = expires.filter(|date| date.0 <= now) {
            return Err(Failure::new(Exit::Usage, format_args!("--invite-expires: {date} is over"))
                .hint("a length of time, as in 24h, or a day or moment to come, in UTC"));
        }
        let passphrase = match &options.passphrase_file {
            Some(path) => Some(read_passphrase(path)?),
            None if options.passphrase => Some(terminal::new_passphrase()?),
            None => None,
        };
        if let Some(passphrase) = &passphrase {
            check_passphrase(passphrase)?;
        }
        Ok(Self { qr: options.qr, passphrase, expires })
    }

    /// The line that is handed over.
    ///
    /// # Errors
    /// Where no invite can be made of it.
    pub fn line(&self, invite: &Invite) -> Outcome<Zeroizing<String>> {
        let failed = |error| {
            Failure::new(Exit::Config, format_args!("no invite can be made: {error}; nothing was changed"))
        };
        invite.check().map_err(failed)?;
        let line = match &self.passphrase {
            None => invite.encode(),
            Some(passphrase) => {
                let salt: [u8; SEAL_SALT_LENGTH] = random()?;
                SealedInvite::seal(invite, passphrase, WORK, salt).map_err(failed)?.encode()
            }
        };
        if self.qr {
            check_screen(&qr_code(&line)?)?; // what does not fit is said before anything is written
        }
        Ok(line)
    }

    /// Prints the line alone on standard output, and where wanted the QR code on standard error.
    ///
    /// # Errors
    /// Where standard output cannot be written.
    pub fn present(&self, line: &str) -> Outcome {
        if self.qr {
            let code = qr_code(line)?;
            show(&code);
        }
        print(line)
    }
}

fn read_passphrase(path: &Path) -> Outcome<Zeroizing<String>> {
    let mut text = files::read_secret(path).map_err(|failure| match failure.exit {
        Exit::NoInput => failure.hint("--passphrase asks for it on the terminal"),
        _ => failure,
    })?;
    let length = text.lines().next().unwrap_or_default().len();
    if text.lines().count() > 1 {
        return Err(Failure::new(Exit::Data, format_args!("{}: more than one line", path.display()))
            .hint("the passphrase alone, on one line"));
    }
    text.truncate(length);
    Ok(text)
}

fn check_passphrase(passphrase: &str) -> Outcome {
    let length = passphrase.chars().count();
    if length < MIN_PASSPHRASE {
        let what = format_args!("a passphrase of {length} characters is soon guessed; nothing was changed");
        return Err(Failure::new(Exit::Usage, what)
            .hint(format_args!("at least {MIN_PASSPHRASE}, better four words or more")));
    }
    if passphrase.len() > spa_proto::MAX_PASSPHRASE {
        let what =
            format_args!("a passphrase has at most {} bytes; nothing was changed", spa_proto::MAX_PASSPHRASE);
        return Err(Failure::new(Exit::Usage, what));
    }
    Ok(())
}

/// At the lowest level of correction: a screen has no scratches, and every module less helps.
fn qr_code(line: &str) -> Outcome<QrCode> {
    QrCode::with_error_correction_level(line, EcLevel::L).map_err(|_| {
        let what = format_args!("an invite of {} characters is too long for a QR code", line.len());
        Failure::new(Exit::Usage, what).hint("fewer services with --allow, or without --qr")
    })
}

/// The columns and rows of the terminal that a code is shown on, where it is one that tells.
fn screen() -> Option<(usize, usize)> {
    let error = std::io::stderr();
    let size = if error.is_terminal() { rustix::termios::tcgetwinsize(&error).ok() } else { None };
    size.filter(|size| size.ws_col != 0 && size.ws_row != 0)
        .map(|size| (size.ws_col.into(), size.ws_row.into()))
}

/// The columns and rows that a code takes, with the line below it.
fn extent(code: &QrCode) -> (usize, usize) {
    let side = code.width() + 2 * QUIET_ZONE as usize; // 2, and never negative
    (side, side.div_ceil(2) + 1)
}

/// Lines that wrap are no code; what is too high can be scrolled.
fn check_screen(code: &QrCode) -> Outcome {
    let (columns, _) = extent(code);
    match screen() {
        Some((width, _)) if width < columns => {
            let what = format_args!(
                "the QR code wants {columns} columns, and this terminal has {width}; nothing was changed"
            );
            Err(Failure::new(Exit::Usage, what)
                .hint("make the window wider or the letters smaller, or leave --qr out"))
        }
        _ => Ok(()),
    }
}

/// Writes the code on standard error, two modules to a character.
fn show(code: &QrCode) {
    let mut error = std::io::stderr();
    let is_terminal = error.is_terminal();
    let lines = draw(code);
    let (columns, rows) = extent(code);
    let too_small = screen().filter(|(width, height)| *height < rows || *width < columns);
    let coloured = is_terminal && std::env::var_os("NO_COLOR").is_none();
    for line in &lines {
        let (on, off) = if coloured { (BLACK_ON_WHITE, USUAL_COLOURS) } else { ("", "") };
        // In colour a block is a dark module; without, the light ones are drawn, as on a dark screen.
        let line = if coloured { line.clone() } else { inverted(line) };
        let _ = writeln!(error, "{on}{line}{off}"); // the line on standard output is what counts
    }
    if let Some((width, height)) = too_small {
        say!(
            "this terminal has {width} columns and {height} rows, and the code wants {columns} and {rows}: make the window larger \
             or the letters smaller, and scroll back"
        );
    }
}

/// The code as lines of half blocks, each character two modules high, dark modules drawn.
fn draw(code: &QrCode) -> Vec<String> {
    let width = code.width() as i32; // at most 177
    let modules = code.to_colors();
    let dark = |x: i32, y: i32| {
        let inside = (0..width).contains(&x) && (0..width).contains(&y);
        inside && modules[(y * width + x) as usize] == Color::Dark
    };
    let range = -QUIET_ZONE..width + QUIET_ZONE;
    let line = |y: i32| {
        let half_block = |x: i32| match (dark(x, y), dark(x, y + 1)) {
            (false, false) => ' ',
            (true, false) => '\u{2580}',
            (false, true) => '\u{2584}',
            (true, true) => '\u{2588}',
        };
        range.clone().map(half_block).collect()
    };
    range.clone().step_by(2).map(line).collect()
}

fn inverted(line: &str) -> String {
    let other = |character| match character {
        ' ' => '\u{2588}',
        '\u{2580}' => '\u{2584}',
        '\u{2584}' => '\u{2580}',
        _ => ' ',
    };
    line.chars().map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_with_its_quiet_zone() {
        let code = qr_code("spa1-").unwrap();
        assert_eq!(code.width(), 21);
        let lines = draw(&code);
        assert_eq!((lines.len(), lines[0].chars().count()), (13, 25));
        assert_eq!(extent(&code), (25, 14), "with the line below");
        assert_eq!(lines[0].trim(), "");
        assert!(
            lines[1].starts_with("  \u{2588}\u{2580}\u{2580}\u{2580}\u{2580}\u{2580}\u{2588}"),
            "{lines:?}"
        );
        assert!(lines.iter().all(|line| inverted(&inverted(line)) == *line));
        let long = qr_code(&"a".repeat(3_000)).err();
        assert!(long.is_some_and(|failure| failure.to_string().contains("too long for a QR code")));
    }

    #[test]
    fn weak_passphrases_are_refused() {
        assert!(check_passphrase("seven c").unwrap_err().to_string().contains("7 characters"));
        assert!(check_passphrase(&"x".repeat(1_025)).is_err());
        assert!(check_passphrase("correct horse").is_ok());
    }
}
