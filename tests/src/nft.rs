//! nf_tables as Debian's `nft` reads it: what stands is told by a program that shares nothing with spa-server.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Family;
use crate::ns::Namespace;

/// The table of spa-server.
pub const TABLE: &str = "spa";
/// Numbers stay numbers.
const LIST: &str = "nft -j -n list ruleset";

/// The whole ruleset of a namespace at one time.
#[derive(Clone, Debug)]
pub struct Ruleset {
    objects: Vec<Value>,
}

/// One element of a set with time-outs.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// The parts of its key: an address, a protocol, a port as text; of an owner two more.
    pub key: Vec<String>,
    /// Whole seconds until the kernel removes it, rounded down; `None` if it stays for ever.
    pub expires: Option<u64>,
    /// What was written beside it.
    pub comment: String,
    /// Packets that it let in.
    pub packets: u64,
}

impl Ruleset {
    /// Reads it; `nft` itself begins again when somebody changes it meanwhile.
    ///
    /// # Panics
    /// If `nft` fails or prints no JSON.
    pub fn read(ns: &Namespace) -> Self {
        Self::parse(&ns.sh(LIST))
    }

    /// Reads that of the calling thread's namespace.
    ///
    /// # Panics
    /// As [`Self::read`].
    pub fn here() -> Self {
        Self::parse(&crate::sh(LIST))
    }

    fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let objects = value["nftables"].as_array().unwrap_or_else(|| panic!("no nftables: {text}"));
        Self { objects: objects.clone() }
    }

    /// Whether the table is there.
    pub fn has_table(&self) -> bool {
        self.objects_of("table").any(|table| is_ours(table, "name"))
    }

    /// The table's flags: `owner`, `persist`.
    pub fn table_flags(&self) -> Vec<&str> {
        let table = self.objects_of("table").find(|table| is_ours(table, "name"));
        let flags = table.and_then(|table| table["flags"].as_array()).map_or(&[][..], Vec::as_slice);
        flags.iter().filter_map(Value::as_str).collect()
    }

    /// All chains, rules and sets of ours but the elements and counts, one a line: for comparison and for messages.
    pub fn ours(&self) -> String {
        lines(self.objects.iter().filter(|object| belongs_to_us(object)))
    }

    /// The same of all that is not ours.
    pub fn foreign(&self) -> String {
        let foreign = self.objects.iter().filter(|object| !belongs_to_us(object));
        lines(foreign.filter(|object| object.get("metainfo").is_none()))
    }

    /// What the rules of a chain of ours say, in order.
    pub fn rules(&self, chain: &str) -> Vec<&Value> {
        self.objects_of("rule").filter(|rule| is_ours(rule, "table") && rule["chain"] == chain).collect()
    }

    /// A chain of ours.
    pub fn chain(&self, name: &str) -> Option<&Value> {
        self.objects_of("chain").find(|chain| is_ours(chain, "table") && chain["name"] == name)
    }

    /// What is open: address, protocol, port.
    pub fn openings(&self, family: Family) -> Vec<Element> {
        self.elements(&format!("openings{}", digit(family)))
    }

    /// Whose it is.
    pub fn owners(&self, family: Family) -> Vec<Element> {
        self.elements(&format!("owners{}", digit(family)))
    }

    fn elements(&self, set: &str) -> Vec<Element> {
        let set = self.objects_of("set").find(|found| is_ours(found, "table") && found["name"] == set);
        let elements = set.and_then(|set| set["elem"].as_array()).map_or(&[][..], Vec::as_slice);
        elements.iter().map(element).collect()
    }

    fn objects_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter_map(move |object| object.get(kind))
    }
}

fn digit(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

fn is_ours(object: &Value, name: &str) -> bool {
    object["family"] == "inet" && object[name] == TABLE
}

fn belongs_to_us(object: &Value) -> bool {
    let Some(inner) = object.as_object().and_then(|object| object.values().next()) else { return false };
    is_ours(inner, "table") || (object.get("table").is_some() && is_ours(inner, "name"))
}

fn element(element: &Value) -> Element {
    let inner = element.get("elem").unwrap_or(element);
    let parts = inner["val"]["concat"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
    Element {
        key: parts.iter().map(text).collect(),
        expires: inner["expires"].as_u64(),
        comment: inner["comment"].as_str().unwrap_or_default().to_owned(),
        packets: inner["counter"]["packets"].as_u64().unwrap_or(0),
    }
}

/// Without handles, counts, elements, and the flags that a table has only while a process holds it.
fn lines<'a>(objects: impl Iterator<Item = &'a Value>) -> String {
    let mut text = String::new();
    for object in objects {
        let mut object = object.clone();
        strip(&mut object);
        text += &format!("{object}\n");
    }
    text
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for volatile in ["handle", "elem", "packets", "bytes"] {
                object.remove(volatile);
            }
            if let Some(table) = object.get_mut("table").and_then(Value::as_object_mut) {
                table.remove("flags");
            }
            object.values_mut().for_each(strip);
        }
        Value::Array(array) => array.iter_mut().for_each(strip),
        _ => {}
    }
}

/// What is open in a family, as text a grant: `192.0.2.10 tcp/22`, with its whole seconds left.
pub fn open(ns: &Namespace, family: Family) -> BTreeMap<String, u64> {
    let openings = Ruleset::read(ns).openings(family);
    let text = |element: Element| match &element.key[..] {
        [source, protocol, port] => {
            (format!("{source} {}/{port}", protocol_name(protocol)), element.expires.unwrap_or(u64::MAX))
        }
        other => panic!("not an opening: {other:?}"),
    };
    openings.into_iter().map(text).collect()
}

/// `nft -n` prints protocols by number.
pub fn protocol_name(number: &str) -> &str {
    match number {
        "6" => "tcp",
        "17" => "udp",
        other => other,
    }
}
