//! What configurations say, and how the wrong ones are refused.

use super::*;

/// The configuration of DESIGN section 7, with a real key.
const EXAMPLE: &str = include_str!("../../../../examples/client.toml");

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(text, Path::new("/home/u/.config/spa/client.toml"))
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

#[test]
fn the_example_is_understood() {
    let config = parse(EXAMPLE).unwrap();
    let host = config.host(None).unwrap();
    assert_eq!((host.name.as_str(), host.address.as_str()), ("bastion", "bastion.example.org"));
    assert_eq!((host.port, host.source), (62201, Source::Auto));
    assert_eq!(host.key_file, Path::new("/home/u/.config/spa/bastion.key"));
    assert_eq!(host.request("ssh").unwrap().to_string(), "ssh");
    assert_eq!(host.endpoints(&host.request("ssh").unwrap()), [endpoint("tcp/22")]);
    assert_eq!(host.request("udp/51820").unwrap(), Request::Endpoint(endpoint("udp/51820")));
    assert_eq!(host.request_for(endpoint("tcp/22")), host.request("ssh").unwrap());
    assert_eq!(host.request_for(endpoint("tcp/80")), Request::Endpoint(endpoint("tcp/80")));
}

/// Error and hint of the example with one piece replaced.
fn fault(from: &str, to: &str) -> (String, Option<String>) {
    assert!(EXAMPLE.contains(from), "{from}");
    let error = parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_valid_one() {
    let error = parse("[hosts.b]\naddress = \"a\"\n  adress = \"S3CRET\"\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "/home/u/.config/spa/client.toml:3:3: unknown key \"adress\"\n   |\n 3 |   adress\n   |   ^^^^^^"
    );
    assert_eq!(error.hint().as_deref(), Some("did you mean \"address\"?"));
    let error = parse("[host.b]\n").unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("did you mean \"hosts\"?"));
}

#[test]
fn wrong_values_are_shown_where_they_are() {
    for (from, to, place, message) in [
        ("port = 62201", "port = 70000", ":8:", "a port is from 1 to 65535"),
        ("port = 62201", "port = 0", ":8:", "a port is from 1 to 65535"),
        ("bastion.example.org", "bastion:22", ":7:11:", "without port and brackets"),
        ("source = \"auto\"", "source = \"any\"", "", "expected \"auto\""),
        ("tcp/22", "tcp/0", "", "expected tcp/PORT"),
        ("\"tcp/22\"", "[]", "", "a service has an endpoint"),
        ("\"tcp/22\"", "[\"tcp/22\", \"ssh\"]", "", "expected tcp/PORT"),
        ("\"tcp/22\"", "22", "", "an endpoint such as \"tcp/22\""),
        ("ssh = ", "SSH = ", "", "a service name is"),
        ("hosts.bastion", "hosts.\"../x\"", "", "a host's name is"),
        ("server-key = \"", "server-key = \"AAAA", "", "a key is 44 characters"),
    ] {
        let (error, _) = fault(from, to);
        assert!(error.contains(message) && error.contains(place), "{to}: {error}");
        assert!(error.contains('^'), "{error}");
    }
    let (error, _) = fault("key-file =", "# key-file =");
    assert!(error.contains("the key \"key-file\" is missing"), "{error}");
}

#[test]
fn misspelt_hosts_and_services_get_a_suggestion() {
    let config = parse(EXAMPLE).unwrap();
    let error = config.host(Some("bastoin")).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("did you mean \"bastion\"?"));
    let error = config.host(None).unwrap().request("shs").unwrap_err();
    assert_eq!(error.to_string(), "host \"bastion\" has no service \"shs\"");
    assert_eq!(error.hint().as_deref(), Some("did you mean \"ssh\"?"));
    assert!(matches!(parse("").unwrap().host(None), Err(Error::WhichHost { .. })));
}

#[test]
fn a_host_is_found_by_name_and_by_address() {
    let second =
        EXAMPLE.replace("hosts.bastion", "hosts.web").replace("ssh = \"tcp/22\"", "web = \"tcp/80\"");
    let config = parse(&format!("{EXAMPLE}\n{second}")).unwrap();
    let found = |name: &str, port: &str| config.host_for(name, endpoint(port)).map(|host| host.name.clone());
    assert_eq!(found("web", "tcp/22").unwrap(), "web");
    assert_eq!(found("bastion.example.org", "tcp/22").unwrap(), "bastion");
    assert_eq!(found("BASTION.example.org.", "tcp/80").unwrap(), "web");
    assert!(matches!(found("bastion.example.org", "tcp/25"), Err(Error::AmbiguousAddress { .. })));
    assert!(matches!(found("elsewhere.example.org", "tcp/22"), Err(Error::UnknownHost { .. })));
    assert!(matches!(config.host(None), Err(Error::WhichHost { .. })));
}

#[test]
fn at_most_eight_requests_fit_a_packet() {
    let config = parse(EXAMPLE).unwrap();
    let host = config.host(None).unwrap();
    let words: Vec<String> = (1..=9).map(|port| format!("tcp/{port}")).collect();
    assert_eq!(host.requests(&words[..8]).unwrap().as_slice().len(), 8);
    assert!(matches!(host.requests(&words), Err(Error::RequestCount)));
}
