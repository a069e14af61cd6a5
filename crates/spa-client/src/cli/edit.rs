//! Puts a host's entry into the text of a configuration, and leaves all else as it is.

use std::path::Path;

use spa_proto::Endpoint;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value, value};

use crate::config::{Config, Host};
use crate::error::Error;

/// What a new configuration begins with.
const BEGINNING: &str = "# The servers that spa-client knocks at. Secrets are in the key files.\n";

/// The text with the entry in it. `path` is where the text is, for messages.
///
/// # Errors
/// [`Error::Config`] where the text is no configuration.
pub(super) fn with_host(text: &str, path: &Path, host: &Host, key_file: &str) -> Result<String, Error> {
    Config::parse(text, path)?;
    let text = if text.trim().is_empty() { BEGINNING } else { text };
    let mut document: DocumentMut = match text.parse() {
        Ok(document) => document,
        // The two parsers are one, so this does not happen; if it does, the error is as good as the other's.
        Err(_) => return Config::parse(text, path).map(|_| text.to_owned()),
    };
    let hosts = document.entry("hosts").or_insert_with(implicit_table);
    if let Some(hosts) = hosts.as_table_like_mut() {
        let mut entry = entry(host, key_file);
        if let Some(old) = hosts.get(&host.name).and_then(Item::as_table) {
            entry.set_position(old.position());
            *entry.decor_mut() = old.decor().clone(); // the comments above it, which may be the whole file's
        }
        hosts.insert(&host.name, Item::Table(entry));
    }
    let text = document.to_string();
    Config::parse(&text, path)?;
    Ok(text)
}

/// The text with the port, the services and the address of an entry that is there; all else of it stays.
///
/// # Errors
/// [`Error::Config`] where the text is no configuration.
pub(super) fn with_renewed(text: &str, path: &Path, host: &Host) -> Result<String, Error> {
    Config::parse(text, path)?;
    let Ok(mut document) = text.parse::<DocumentMut>() else { return Ok(text.to_owned()) }; // as above
    let entry = document.get_mut("hosts").and_then(|hosts| hosts.get_mut(&host.name));
    if let Some(entry) = entry.and_then(Item::as_table_like_mut) {
        let mut set = |key: &str, new: Value| {
            let mut new = new;
            match entry.get_mut(key).and_then(Item::as_value_mut) {
                // In its place, with the comments before and behind it.
                Some(old) => {
                    *new.decor_mut() = old.decor().clone();
                    *old = new;
                }
                None => drop(entry.insert(key, Item::Value(new))),
            }
        };
        set("address", host.address.as_str().into());
        set("port", i64::from(host.port).into());
        set("services", services_value(host).into());
    }
    let text = document.to_string();
    Config::parse(&text, path)?;
    Ok(text)
}

/// `[hosts.NAME]` needs no `[hosts]` above it.
fn implicit_table() -> Item {
    let mut table = Table::new();
    table.set_implicit(true);
    Item::Table(table)
}

fn entry(host: &Host, key_file: &str) -> Table {
    let mut entry = Table::new();
    entry.decor_mut().set_prefix("\n");
    entry.insert("address", value(&host.address));
    entry.insert("port", value(i64::from(host.port)));
    entry.insert("server-key", value(host.server_key.to_string()));
    entry.insert("key-file", value(key_file));
    entry.insert("source", value(host.source.to_string()));
    if let Some(resolver) = &host.resolver {
        entry.insert("resolver", value(resolver.to_string()));
    }
    entry.insert("services", value(services_value(host)));
    entry
}

fn services_value(host: &Host) -> InlineTable {
    let mut services = InlineTable::new();
    for (name, endpoints) in &host.services {
        services.insert(name.as_str(), endpoints_value(endpoints));
    }
    services
}

fn endpoints_value(endpoints: &[Endpoint]) -> Value {
    match endpoints {
        [endpoint] => endpoint.to_string().into(),
        several => several.iter().map(ToString::to_string).collect::<Array>().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../../../../examples/client.toml");

    fn host(name: &str) -> Host {
        let config = Config::parse(TEXT, Path::new("client.toml")).unwrap();
        let mut host = Host { name: name.to_owned(), ..config.hosts()[0].clone() };
        host.services
            .insert("web".parse().unwrap(), vec!["tcp/80".parse().unwrap(), "tcp/443".parse().unwrap()]);
        host.key_file = format!("{name}.key").into();
        host
    }

    fn edited(text: &str, name: &str) -> String {
        with_host(text, Path::new("client.toml"), &host(name), &format!("{name}.key")).unwrap()
    }

    #[test]
    fn an_entry_is_added_and_nothing_else_changes() {
        let text = edited(TEXT, "second");
        assert!(text.starts_with(TEXT), "{text}");
        let config = Config::parse(&text, Path::new("client.toml")).unwrap();
        assert_eq!(config.host(Some("second")).unwrap(), &host("second"));
        assert_eq!(config.hosts().len(), 2);
    }

    #[test]
    fn an_entry_is_replaced_in_its_place() {
        let text = edited(&edited(TEXT, "second"), "bastion");
        let config = Config::parse(&text, Path::new("client.toml")).unwrap();
        assert_eq!(config.host(Some("bastion")).unwrap(), &host("bastion"));
        assert_eq!(config.hosts().len(), 2);
        assert!(text.starts_with("# ~/.config/spa/client.toml"), "{text}");
        assert!(text.find("bastion").unwrap() < text.find("second").unwrap(), "{text}");
    }

    #[test]
    fn a_renewed_entry_keeps_what_is_its_own() {
        let text = TEXT.replace("[hosts.bastion]", "[hosts.bastion]\n# mine");
        let renewed = Host { port: 4242, source: "observed".parse().unwrap(), ..host("bastion") };
        let text = with_renewed(&text, Path::new("client.toml"), &renewed).unwrap();
        assert!(text.contains("# mine") && text.contains("port = 4242"), "{text}");
        let config = Config::parse(&text, Path::new("client.toml")).unwrap();
        let read = config.host(Some("bastion")).unwrap();
        assert_eq!((&read.services, read.port), (&renewed.services, 4242));
        assert_ne!(read.source, renewed.source, "the entry's own");
    }

    #[test]
    fn other_ways_to_write_a_table_work_too() {
        for text in ["", "hosts = {}\n", "[hosts]\n", "# a comment\n"] {
            let text = edited(text, "b.example.org");
            let config = Config::parse(&text, Path::new("client.toml")).unwrap();
            assert_eq!(config.hosts(), [host("b.example.org")], "{text}");
        }
        assert!(with_host("[host.x]\n", Path::new("c"), &host("x"), "x.key").is_err());
    }
}
