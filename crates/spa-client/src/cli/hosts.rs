//! `hosts`: lists the configured hosts.

use serde_json::{Map, Value, json};
use spa_proto::Endpoint;

use super::failure::Failure;
use super::say::print;
use crate::config::{Config, Host};

pub(super) fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print(&Value::from_iter(config.hosts().iter().map(json)).to_string());
    }
    let width = |field: fn(&Host) -> usize| config.hosts().iter().map(field).max().unwrap_or(0);
    let (names, addresses) = (width(|host| host.name.len()), width(|host| host.address.len()));
    for host in config.hosts() {
        let services: Vec<String> =
            host.services.iter().map(|(name, list)| format!("{name}={}", join(list))).collect();
        let (name, address, services) = (&host.name, &host.address, services.join(" "));
        print(format!("{name:names$}  {address:addresses$}  {:5}  {services}", host.port).trim_end())?;
    }
    Ok(())
}

fn join(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn json(host: &Host) -> Value {
    let services: Map<String, Value> = host
        .services
        .iter()
        .map(|(name, list)| (name.to_string(), list.iter().map(ToString::to_string).collect()))
        .collect();
    json!({
        "name": host.name,
        "address": host.address,
        "port": host.port,
        "server_key": host.server_key.to_string(),
        "key_file": host.key_file,
        "source": host.source.to_string(),
        "services": services,
    })
}
