//! The text of a new configuration. All values are validated words, so none needs escaping but the paths.

use std::path::Path;

use spa_proto::{Endpoint, ServiceName};

use super::Plan;
use crate::config::Backend;

/// The commented `server.toml` of a plan.
pub fn server_toml(plan: &Plan) -> String {
    let Plan { port, backend, state_dir, key_file, clients_dir, .. } = plan;
    let backend = match backend {
        Backend::Iptables => "iptables",
        Backend::Nftables => "nftables",
        Backend::Auto => "auto",
    };
    let except: Vec<_> = plan.except.iter().map(|one| format!("\"{one}\"")).collect();
    let services: String = plan.services.iter().map(|(name, list)| service(name, list)).collect();
    format!(
        "\
# Written by `spa-server init`. A key that is not known is an error; `spa-server check` reads this file, changes nothing,
# and says what is wrong. After a change: `spa-server reload`. Every key: docs/CONFIGURATION.md.

[server]
# UDP. Nothing listens on it; knocks are taken off the wire below the firewall. Every client's entry has it.
port = {port}
# Private key and cloak keys. Whoever has it can open every port below.
key-file = {key_file}
# What has to outlive a restart: the replay record, the last configuration that worked.
state-dir = {state_dir}
# One file a client: `spa-server client add`.
clients-dir = {clients_dir}
# Take knocks on these interfaces only; without the key, on all.
# interfaces = [\"eth0\"]

[firewall]
# iptables | nftables | auto. After a change: restart; what the old one held goes once the new one protects.
backend = \"{backend}\"
# Drop what is not granted. With false your own rules have to close the ports, and only grants are made here.
protect = true
# Never filtered here: interfaces, or networks such as the one that you administer from.
except = [{except}]

[limits]
# How old a knock may be, and how far the two clocks may differ, either way.
max-age = \"60s\"
# How long a port opens for when the client names no time; connections made in that time live on.
open-for = \"30s\"
# The most that a client may ask for.
max-open-for = \"1h\"

[services]
# What clients ask for by name. Every port named here is closed to all who have no grant.
{services}",
        key_file = path(key_file),
        state_dir = path(state_dir),
        clients_dir = path(clients_dir),
        except = except.join(", "),
    )
}

fn service(name: &ServiceName, endpoints: &[Endpoint]) -> String {
    let list: Vec<_> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    match list.as_slice() {
        [one] => format!("{name} = {one}\n"),
        several => format!("{name} = [{}]\n", several.join(", ")),
    }
}

/// A path as a TOML string.
fn path(path: &Path) -> String {
    toml_edit::Value::from(path.to_string_lossy().into_owned()).to_string()
}
