//! Where the client keeps its files: the XDG base directories, and their like on Windows.

use std::ffi::OsString;
use std::path::PathBuf;

/// `$XDG_CONFIG_HOME/spa/client.toml`, or `~/.config/spa/client.toml`; on Windows under `%APPDATA%`. `None` where
/// the environment names no home.
pub fn default_config() -> Option<PathBuf> {
    base("XDG_CONFIG_HOME", ".config", "APPDATA").map(|base| base.join("spa").join("client.toml"))
}

/// `$XDG_STATE_HOME/spa`, or `~/.local/state/spa`; on Windows under `%LOCALAPPDATA%`.
pub fn default_state() -> Option<PathBuf> {
    base("XDG_STATE_HOME", ".local/state", "LOCALAPPDATA").map(|base| base.join("spa"))
}

fn base(xdg: &str, in_home: &str, windows: &str) -> Option<PathBuf> {
    choose(std::env::var_os(xdg), std::env::var_os("HOME"), in_home)
        .or_else(|| std::env::var_os(windows).filter(|_| cfg!(windows)).map(PathBuf::from))
}

/// The XDG rule: a relative or empty value is ignored.
fn choose(xdg: Option<OsString>, home: Option<OsString>, in_home: &str) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg.and_then(absolute).or_else(|| home.and_then(absolute).map(|home| home.join(in_home)))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn xdg_comes_before_home() {
        let chosen = |xdg: Option<&str>, home: Option<&str>| {
            choose(xdg.map(Into::into), home.map(Into::into), ".config")
                .map(|path| path.display().to_string())
        };
        assert_eq!(chosen(Some("/x"), Some("/h")).as_deref(), Some("/x"));
        assert_eq!(chosen(Some("x"), Some("/h")).as_deref(), Some("/h/.config"));
        assert_eq!(chosen(None, Some("/h")).as_deref(), Some("/h/.config"));
        assert_eq!(chosen(Some(""), Some("")), None);
    }
}
