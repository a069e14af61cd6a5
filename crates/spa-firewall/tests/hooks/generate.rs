//! Random rule sets, from a seed.

use std::fmt::Write;

/// xorshift64*, so that a seed means the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    /// One time in so many.
    pub fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// What is loaded, by which program.
#[derive(Default)]
pub struct Rules {
    /// For `nft -f`.
    pub native: String,
    /// For `iptables-nft-restore` and `ip6tables-nft-restore`.
    pub nft: [Option<String>; 2],
    /// For the legacy ones.
    pub legacy: [Option<String>; 2],
    /// A grant by our own nftables driver, for this host's number.
    pub openings: Option<&'static str>,
}

/// IPv4 or IPv6 of everything.
#[derive(Clone, Copy, PartialEq, Eq)]
struct V6(bool);

impl V6 {
    fn source(self, random: &mut Random) -> &'static str {
        match self.0 {
            false => random.pick(&[
                "10.1.0.0/24",
                "10.2.0.0/24",
                "10.1.0.2/32",
                "10.1.0.128/25",
                "10.0.0.0/8",
                "10.2.0.3/32",
                "10.1.0.0/30",
                "192.0.2.0/24",
                "10.1.0.2/255.0.0.255",
            ]),
            true => random.pick(&[
                "fd01::/64",
                "fd02::/64",
                "fd01::2/128",
                "fd00::/8",
                "fd02::3/128",
                "fd01::/126",
                "2001:db8::/32",
            ]),
        }
    }

    fn destination(self, random: &mut Random) -> &'static str {
        match self.0 {
            false => random.pick(&["10.1.0.1/32", "10.2.0.0/24", "10.0.0.0/8"]),
            true => random.pick(&["fd01::1/128", "fd02::/64", "fd00::/8"]),
        }
    }

    fn range(self) -> &'static str {
        if self.0 { "fd01::2-fd01::10" } else { "10.1.0.3-10.1.0.200" }
    }

    fn name(self) -> &'static str {
        if self.0 { "ip6" } else { "ip" }
    }
}

const CHAINS: [&str; 2] = ["one", "two"];

/// The conditions of a rule of iptables, and whether it is for TCP alone.
fn conditions(random: &mut Random, family: V6, in_input: bool, with_ct: bool) -> (String, bool) {
    let mut text = String::new();
    let not = |random: &mut Random| if random.one_in(5) { "! " } else { "" };
    if random.one_in(3) {
        let _ = write!(text, " {}-s {}", not(random), family.source(random));
    }
    if random.one_in(8) {
        let _ = write!(text, " {}-d {}", not(random), family.destination(random));
    }
    if in_input && random.one_in(5) {
        let _ = write!(text, " {}-i {}", not(random), random.pick(&["ea", "eb", "e+", "lo"]));
    }
    let mut tcp = false;
    match random.below(7) {
        0..3 => {
            tcp = true;
            let ports = ["22", "80", "8080", "20:25", "1:100", "81:65535", "0:21"];
            let _ = write!(text, " -p tcp {}--dport {}", not(random), random.pick(&ports));
        }
        3 => {
            tcp = true;
            let ports = ["22,80", "80:90,8080", "1,2,3", "22:23,8000:9000"];
            let _ = write!(text, " -p tcp -m multiport {}--dports {}", not(random), random.pick(&ports));
        }
        4 => {
            tcp = true;
            let flags =
                random.pick(&["--syn", "--tcp-flags ALL SYN", "--sport 1024:65535", "! --sport 1:1023"]);
            let _ = write!(text, " -p tcp {flags}");
        }
        5 => text.push_str(random.pick(&[" -p udp --dport 53", " ! -p tcp", " -p udp", " -p icmp"])),
        _ => {}
    }
    if with_ct && random.one_in(4) {
        let states = ["NEW", "ESTABLISHED,RELATED", "NEW,ESTABLISHED", "INVALID", "UNTRACKED", "DNAT"];
        let _ = write!(text, " -m conntrack {}--ctstate {}", not(random), random.pick(&states));
    }
    if with_ct && random.one_in(16) {
        text.push_str(random.pick(&[
            " -m conntrack --ctdir ORIGINAL",
            " -m conntrack --ctdir REPLY",
            " -m conntrack --ctorigdstport 22",
        ]));
    }
    if random.one_in(10) {
        let _ =
            write!(text, " -m mark {}--mark {}", not(random), random.pick(&["1", "2", "0x3/0x1", "0/0xff"]));
    }
    if random.one_in(14) {
        let _ = write!(text, " -m iprange {}--src-range {}", not(random), family.range());
    }
    if in_input && random.one_in(14) {
        let _ = write!(
            text,
            " -m addrtype {}--dst-type {}",
            not(random),
            random.pick(&["LOCAL", "UNICAST", "MULTICAST"])
        );
    }
    if random.one_in(14) {
        text.push_str(random.pick(&[
            " -m time --datestart 2020-01-01T00:00:00 --datestop 2037-01-01T00:00:00",
            " -m time --datestop 2021-01-01T00:00:00",
        ]));
    }
    if random.one_in(14) {
        text.push_str(" -m comment --comment \"a -j DROP \\\" of words\"");
    }
    (text, tcp)
}

fn verdict(random: &mut Random, tcp: bool, chains: &[&str]) -> String {
    match random.below(10) {
        0..3 => "-j ACCEPT".into(),
        3..5 => "-j DROP".into(),
        5 if tcp => "-j REJECT --reject-with tcp-reset".into(),
        5 => "-j REJECT".into(),
        6 => "-j RETURN".into(),
        7 if !chains.is_empty() => format!("-g {}", random.pick(chains)),
        _ if !chains.is_empty() => format!("-j {}", random.pick(chains)),
        _ => "-j ACCEPT".into(),
    }
}

/// A set for one program of iptables. Marks and rewriting only where one program of a family has them, for which of two
/// runs first cannot be known.
fn tables(random: &mut Random, family: V6, alone: bool) -> String {
    let mut text = String::from("*filter\n");
    let policy = |random: &mut Random| if random.one_in(3) { "DROP" } else { "ACCEPT" };
    let _ = writeln!(text, ":INPUT {} [0:0]\n:FORWARD ACCEPT [0:0]", policy(random));
    let _ = writeln!(text, ":OUTPUT {} [0:0]", if random.one_in(12) { "DROP" } else { "ACCEPT" });
    CHAINS.iter().for_each(|chain| text.push_str(&format!(":{chain} - [0:0]\n")));
    if random.one_in(2) {
        text.push_str(&ours(random, family));
    }
    for _ in 0..random.below(6) {
        let (conditions, tcp) = conditions(random, family, true, true);
        let _ = writeln!(text, "-A INPUT{conditions} {}", verdict(random, tcp, &CHAINS));
    }
    for (at, chain) in CHAINS.iter().enumerate() {
        for _ in 0..random.below(4) {
            let (conditions, tcp) = conditions(random, family, true, true);
            // Only forward: the kernel refuses loops.
            let _ = writeln!(text, "-A {chain}{conditions} {}", verdict(random, tcp, &CHAINS[at + 1..]));
        }
    }
    if random.one_in(6) {
        let states = random.pick(&["ESTABLISHED", "NEW", "ESTABLISHED,RELATED"]);
        let _ = writeln!(
            text,
            "-A OUTPUT {} -m conntrack --ctstate {states} {}",
            random.pick(&["", "-p tcp", "-p tcp --sport 22", "-o ea", "-p udp"]),
            random.pick(&["-j ACCEPT", "-j DROP"])
        );
    }
    text.push_str("COMMIT\n");
    if random.one_in(4) {
        text.push_str("*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
        let (conditions, _) = conditions(random, family, true, false);
        let _ = writeln!(
            text,
            "-A PREROUTING{conditions} {}",
            random.pick(&["-j DROP", "-j CT --notrack", "-j ACCEPT"])
        );
        text.push_str("COMMIT\n");
    }
    if alone && random.one_in(2) {
        text.push_str("*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
        for _ in 0..=random.below(2) {
            let (conditions, _) = conditions(random, family, true, true);
            let targets = [
                "-j MARK --set-mark 1",
                "-j MARK --set-xmark 0x2/0xff",
                "-j MARK --or-mark 3",
                "-j CONNMARK --set-mark 1",
                "-j CONNMARK --restore-mark",
                "-j CONNMARK --save-mark",
                "-j DROP",
            ];
            let _ = writeln!(text, "-A PREROUTING{conditions} {}", random.pick(&targets));
        }
        if random.one_in(3) {
            let _ =
                writeln!(text, "-A INPUT -m connmark --mark 1 {}", random.pick(&["-j ACCEPT", "-j DROP"]));
        }
        text.push_str("COMMIT\n");
    }
    if alone && random.one_in(4) {
        text.push_str("*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n");
        let far = if family.0 { "[2001:db8::7]:80" } else { "198.51.100.7:80" };
        let near = if family.0 { "[fd01::1]:8080" } else { "10.1.0.1:8080" };
        let target = match random.below(3) {
            0 => "-j REDIRECT --to-ports 8080".to_owned(),
            1 => format!("-j DNAT --to-destination {far}"),
            _ => format!("-j DNAT --to-destination {near}"),
        };
        let source = family.source(random);
        let _ = writeln!(
            text,
            "-A PREROUTING -s {source} -p tcp --dport {} {target}",
            random.pick(&["22", "80", "22:80"])
        );
        text.push_str("COMMIT\n");
    }
    text
}

/// Our chain as the driver writes it, jumped to from the first place, or a later one.
fn ours(random: &mut Random, family: V6) -> String {
    let mut text = String::from(":SPA - [0:0]\n");
    if random.one_in(4) {
        text.push_str("-A INPUT -p tcp --dport 80 -j ACCEPT\n");
    }
    text.push_str("-A INPUT -j SPA\n-A SPA -i lo -j RETURN\n");
    if random.one_in(3) {
        let except = if family.0 { "fd02::/64" } else { "10.2.0.0/24" };
        let _ = writeln!(text, "-A SPA -s {except} -j RETURN");
    }
    text.push_str(
        "-A SPA -p tcp -m tcp --dport 22 -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j ACCEPT\n",
    );
    let granted = if family.0 { "fd01::3" } else { "10.1.0.3" };
    let until = random.pick(&["2020-01-01T00:00:00", "2037-01-01T00:00:00"]);
    let _ = writeln!(
        text,
        "-A SPA -s {granted} -p tcp -m tcp --dport 22 -m comment --comment \"spa alice until=1\" \
         -m time --datestart 2019-01-01T00:00:00 --datestop {until} -j ACCEPT"
    );
    text.push_str("-A SPA -p tcp -m tcp --dport 22 -j DROP\n-A SPA -p udp -m udp --dport 62201 -j DROP\n");
    text
}

/// The condition of a native rule that may stand in a table of both families.
fn native_condition(random: &mut Random, table: &str) -> String {
    let not = if random.one_in(4) { "!= " } else { "" };
    let v6 = V6(match table {
        "ip6" => true,
        "ip" => false,
        _ => random.one_in(2),
    });
    let (name, source) = (v6.name(), v6.source(random));
    let source = if source.contains("/255") { "10.1.0.2" } else { source };
    match random.below(14) {
        0 => format!("tcp dport {not}{}", random.pick(&["22", "80", "8080", "20-25", "81-65535"])),
        1 => format!("tcp dport {not}{{ {} }}", random.pick(&["22, 80", "20-30, 8080", "1-21, 23-65535"])),
        2 => format!("{name} saddr {not}{source}"),
        3 if v6.0 => "ip6 saddr @net6".into(),
        3 => format!("ip saddr {not}@net4"),
        4 => format!(
            "ct state {}",
            random.pick(&["new", "established,related", "invalid", "untracked", "new,untracked"])
        ),
        5 => format!("iifname {not}{}", random.pick(&["\"ea\"", "\"eb\"", "\"e*\"", "{ \"ea\", \"lo\" }"])),
        6 => format!("meta mark {not}{}", random.pick(&["1", "2", "0-1"])),
        7 => format!("meta mark and 0x1 {} 0x1", random.pick(&["==", "!="])),
        8 if v6.0 => "ip6 saddr . tcp dport { fd01::2 . 22, fd02::3 . 80 }".into(),
        8 => "ip saddr . tcp dport { 10.1.0.2 . 22, 10.1.0.128-10.1.0.200 . 20-90 }".into(),
        9 => format!("meta l4proto {not}{}", random.pick(&["tcp", "udp", "{ tcp, udp }"])),
        10 => random
            .pick(&[
                "fib daddr type local",
                "tcp flags syn / syn,ack",
                "ct direction original",
                "udp dport 53",
            ])
            .into(),
        11 => random.pick(&["tcp sport 1024-65535", "ct mark 0", "tcp dport @ports"]).into(),
        12 if table == "inet" && random.one_in(2) => "meta nfproto ipv4".into(),
        12 if v6.0 => "ip6 daddr fd01::1".into(),
        12 => "ip daddr 10.1.0.0/24".into(),
        _ => String::new(),
    }
}

fn native_verdict(random: &mut Random, chains: &[&str], ct: bool) -> String {
    match random.below(11) {
        0..3 => "accept".into(),
        3..5 => "drop".into(),
        5 if ct => "reject".into(),
        6 => "return".into(),
        7 if !chains.is_empty() => format!("goto {}", random.pick(chains)),
        8 if !chains.is_empty() => format!("jump {}", random.pick(chains)),
        9 => "counter".into(),
        10 => "th dport vmap { 22 : accept, 80 : drop, 1000-9000 : continue }".into(),
        _ => "accept".into(),
    }
}

/// A table for nft with several base chains.
fn native(random: &mut Random, name: &str, table: &str) -> String {
    let mut text = format!("table {table} {name} {{\n");
    if table != "ip6" {
        text.push_str(
            "set net4 { type ipv4_addr; flags interval, timeout; elements = { 10.1.0.0/31 timeout 1h, \
             10.1.0.2-10.1.0.9, 10.1.0.10/31, 10.2.0.128/25 } }\n",
        );
    }
    if table != "ip" {
        text.push_str(
            "set net6 { type ipv6_addr; flags interval; elements = { fd01::2-fd01::9, fd02::100/120 } }\n",
        );
    }
    text.push_str(
        "set ports { type inet_service; flags timeout; elements = { 80 timeout 1h, 8080 timeout 1h } }\n",
    );
    for (at, chain) in CHAINS.iter().enumerate() {
        let _ = writeln!(text, "chain {chain} {{");
        for _ in 0..random.below(4) {
            // Called from chains of every hook, so without what only works in some.
            let rule = native_verdict(random, &CHAINS[at + 1..], false);
            let _ = writeln!(text, "{} {rule}", native_condition(random, table));
        }
        text.push_str("}\n");
    }
    let mut hooks = vec![
        ("input", 5),
        ("input", -10),
        ("prerouting", -160),
        ("input", -140),
        ("output", 7),
        ("prerouting", -310),
    ];
    for number in 0..=random.below(3) {
        let (hook, priority) = hooks.swap_remove(random.below(hooks.len()));
        let policy = if hook == "input" && random.one_in(4) { "drop" } else { "accept" };
        let _ = writeln!(
            text,
            "chain base{number} {{ type filter hook {hook} priority {priority}; policy {policy};"
        );
        let rules = if hook == "output" { 1 } else { 1 + random.below(4) };
        for _ in 0..rules {
            let condition = match hook {
                "output" => random
                    .pick(&["ct state new", "tcp sport 22", "oifname \"eb\"", "ct direction reply"])
                    .to_owned(),
                _ => native_condition(random, table),
            };
            let rule = match (hook, priority) {
                ("output", _) => random.pick(&["drop", "accept"]).to_owned(),
                ("prerouting", -310) if random.one_in(2) => "notrack".into(),
                ("prerouting", _) if random.one_in(2) => {
                    random.pick(&["meta mark set 1", "meta mark set 2", "ct mark set 1"]).into()
                }
                ("prerouting", _) => random.pick(&["drop", "accept", "jump one"]).into(),
                _ => native_verdict(random, &CHAINS, true),
            };
            // fib and ct are not for every place, but these are: a mark of a connection needs one.
            let rule = if priority == -310 && rule.starts_with("ct mark") { "accept".into() } else { rule };
            let _ = writeln!(text, "{condition} {rule}");
        }
        text.push_str("}\n");
    }
    text + "}\n"
}

impl Rules {
    pub fn random(random: &mut Random) -> Self {
        let mut rules = Self::default();
        let parts = 1 + random.below(7); // bits: nft, legacy, native
        for at in 0..2 {
            let family = V6(at == 1);
            if parts & 1 != 0 {
                rules.nft[at] = Some(tables(random, family, true));
            }
            if parts & 2 != 0 {
                rules.legacy[at] = Some(tables(random, family, parts & 1 == 0));
            }
        }
        if parts & 4 != 0 {
            let kind = random.pick(&["inet", "inet", "ip", "ip6"]);
            rules.native.push_str(&native(random, "mine", kind));
        }
        if random.one_in(5) {
            rules.openings = Some(random.pick(&["2", "3"]));
        }
        rules
    }
}
