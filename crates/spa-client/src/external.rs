//! The address that the world sees this machine at, asked of a resolver that the user chose: for bound mode behind NAT.
//!
//! Whoever can forge the answer *and* capture the knock has the port opened for an address of his own, as in observed
//! mode: the server refuses what comes from elsewhere, and cannot know whose address it is. Plain DNS therefore protects
//! only from those who are not on the path; HTTPS protects from them too, but not from the resolver itself.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};
use spa_proto::is_host;

use crate::address::is_global;

/// How long a resolver may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// When an unanswered DNS query is repeated.
const REPEAT: Duration = Duration::from_secs(1);
/// Port of DNS, RFC 1035.
const DNS_PORT: u16 = 53;
/// Longest DNS message over UDP without EDNS, RFC 1035 section 2.3.4.
const MAX_MESSAGE: usize = 512;
/// Longest URL, and longest answer to it, in bytes: the answer is one address.
const MAX_URL: usize = 1024;
const MAX_ANSWER: usize = 256;

/// Who is asked for the external address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// `https://...`: the body of the answer is the address. Fetched by the program `curl`.
    Https(String),
    /// `dns:NAME@SERVER`: the server answers a query for NAME (A or AAAA) with the asker's own address.
    Dns {
        /// What is asked for, as in `myip.opendns.com`.
        name: String,
        /// Who is asked, as in `resolver1.opendns.com`.
        server: String,
    },
    /// `dns-txt:NAME@SERVER`: the same, in a TXT record.
    DnsText {
        /// What is asked for, as in `o-o.myaddr.l.google.com`.
        name: String,
        /// Who is asked, as in `ns1.google.com`.
        server: String,
    },
}

/// The text names no resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolverError;

impl fmt::Display for ResolverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "expected \"https://...\", \"dns:NAME@SERVER\" or \"dns-txt:NAME@SERVER\", as in \
             \"dns:myip.opendns.com@resolver1.opendns.com\"",
        )
    }
}

impl std::error::Error for ResolverError {}

impl FromStr for Resolver {
    type Err = ResolverError;

    fn from_str(text: &str) -> Result<Self, ResolverError> {
        if let Some(rest) = text.strip_prefix("https://") {
            let plain = text.len() <= MAX_URL && text.bytes().all(|byte| byte.is_ascii_graphic());
            let host = rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[');
            return if plain && host { Ok(Self::Https(text.to_owned())) } else { Err(ResolverError) };
        }
        let query = |rest: &str| {
            let (name, server) = rest.split_once('@').ok_or(ResolverError)?;
            let is_name = is_host(name) && name.parse::<IpAddr>().is_err();
            if is_name && is_host(server) {
                Ok((name.to_owned(), server.to_owned()))
            } else {
                Err(ResolverError)
            }
        };
        match text.split_once(':') {
            Some(("dns", rest)) => query(rest).map(|(name, server)| Self::Dns { name, server }),
            Some(("dns-txt", rest)) => query(rest).map(|(name, server)| Self::DnsText { name, server }),
            _ => Err(ResolverError),
        }
    }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https(url) => f.write_str(url),
            Self::Dns { name, server } => write!(f, "dns:{name}@{server}"),
            Self::DnsText { name, server } => write!(f, "dns-txt:{name}@{server}"),
        }
    }
}

impl Resolver {
    /// This machine's external address of the same family as `local`: asked over that family, within 5 seconds.
    ///
    /// # Errors
    /// Whatever kept it from answering, and an answer that is no global address of that family.
    pub async fn ask(&self, local: IpAddr) -> io::Result<IpAddr> {
        let (resolver, v4) = (self.clone(), local.is_ipv4());
        let asked = tokio::task::spawn_blocking(move || resolver.ask_blocking(v4));
        // The system's look-up of the resolver's own name has no limit of its own.
        let answer = match tokio::time::timeout(TIMEOUT + REPEAT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")),
        };
        answer.and_then(|address| accept(address, v4)).map_err(|error| {
            let family = if v4 { "IPv4" } else { "IPv6" };
            io::Error::new(error.kind(), format!("no external {family} address from {self}: {error}"))
        })
    }

    fn ask_blocking(&self, v4: bool) -> io::Result<IpAddr> {
        match self {
            Self::Https(url) => fetch(url, v4),
            Self::Dns { name, server } => query(name, if v4 { TYPE::A } else { TYPE::AAAA }, server, v4),
            Self::DnsText { name, server } => query(name, TYPE::TXT, server, v4),
        }
    }
}

/// What a server elsewhere could see us at, in the family that it will.
fn accept(address: IpAddr, v4: bool) -> io::Result<IpAddr> {
    let address = address.to_canonical();
    let fault = if address.is_ipv4() != v4 {
        "which is of the other family"
    } else if !is_global(address) {
        "which is not a global address"
    } else {
        return Ok(address);
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("it named {address}, {fault}")))
}

/// Runs curl. TLS needs a stack with C or assembler in it, which this program does without; curl is on every desktop
/// system, and uses the system's own certificates.
fn fetch(url: &str, v4: bool) -> io::Result<IpAddr> {
    let seconds = TIMEOUT.as_secs().to_string();
    let cannot_run = |error: io::Error| io::Error::new(error.kind(), format!("cannot run curl: {error}"));
    let mut child = Command::new("curl")
        .arg("--disable") // no ~/.curlrc; has to come first
        .args(["--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*", "--proto", "=https"])
        .args(["--max-time", &seconds, "--max-filesize", &MAX_ANSWER.to_string()])
        .args([if v4 { "--ipv4" } else { "--ipv6" }, "--url", url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;
    // Where the server names no length, --max-filesize of older versions does nothing.
    let mut body = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(MAX_ANSWER as u64 + 1).read_to_end(&mut body)?;
    }
    let output = child.wait_with_output().map_err(cannot_run)?;
    if body.len() > MAX_ANSWER {
        return Err(no_address());
    }
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().next().unwrap_or("curl failed");
        let plain =
            line.chars().filter(|character| !character.is_control()).take(MAX_ANSWER).collect::<String>();
        return Err(io::Error::other(plain));
    }
    std::str::from_utf8(&body).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(no_address)
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its answer is no address")
}

/// Asks a DNS server, the first of its addresses in the family.
fn query(name: &str, kind: TYPE, server: &str, v4: bool) -> io::Result<IpAddr> {
    use std::net::ToSocketAddrs as _;
    let deadline = Instant::now() + TIMEOUT;
    let to = (server, DNS_PORT)
        .to_socket_addrs()?
        .find(|address| address.ip().to_canonical().is_ipv4() == v4)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address of this family"))?;
    let id = rand::random();
    let message = question(id, name, kind)?;
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(to)?; // nobody else is heard
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        socket.send(&message)?;
        let repeat = deadline.min(Instant::now() + REPEAT);
        while let Some(left) = repeat.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Some(answer) = answer(&buffer[..length], id, name, kind) {
                        return answer;
                    }
                }
                Err(error) if is_timeout(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn question(id: u16, name: &str, kind: TYPE) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(io::Error::other)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(io::Error::other)
}

/// The address in an answer; `None` where the message answers something else.
fn answer(message: &[u8], id: u16, name: &str, kind: TYPE) -> Option<io::Result<IpAddr>> {
    let packet = Packet::parse(message).ok()?;
    let ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.questions.iter().any(|question| {
            question.qtype == QTYPE::TYPE(kind) && question.qname.to_string().eq_ignore_ascii_case(name)
        });
    if !ours {
        return None;
    }
    if packet.rcode() != RCODE::NoError {
        let refusal = format!("it answered {:?}", packet.rcode());
        return Some(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
    }
    Some(packet.answers.iter().find_map(|record| address(&record.rdata)).ok_or_else(no_address))
}

fn address(data: &RData<'_>) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Some(Ipv6Addr::from(aaaa.address).into()),
        RData::TXT(text) => {
            text.iter_raw().find_map(|(text, _)| std::str::from_utf8(text).ok()?.trim().parse().ok())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_have_three_forms() {
        for text in [
            "https://api.example.org/ip?text=1",
            "https://[2001:db8::1]:8443/",
            "dns:myip.opendns.com@resolver1.opendns.com",
            "dns-txt:o-o.myaddr.l.google.com@2001:4860:4860::8888",
        ] {
            assert_eq!(text.parse::<Resolver>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "https://",
            "https:// x",
            "https://-o/x",
            "http://a.org/",
            "file:///etc/passwd",
            "dns:",
            "dns:a@",
            "dns:@b",
            "dns:192.0.2.1@b",
            "dns:a b@c",
            "dns-txt:a@b:53",
            "DNS:a@b",
            "https://a/\u{7}",
        ] {
            assert_eq!(text.parse::<Resolver>(), Err(ResolverError), "{text}");
        }
    }

    #[test]
    fn an_answer_is_a_global_address_of_the_right_family() {
        let ask = |text: &str, v4| accept(text.parse().unwrap(), v4);
        assert_eq!(ask("9.9.9.9", true).unwrap().to_string(), "9.9.9.9");
        assert_eq!(ask("::ffff:9.9.9.9", true).unwrap().to_string(), "9.9.9.9");
        assert_eq!(ask("2600::1", false).unwrap().to_string(), "2600::1");
        for (text, v4) in [("9.9.9.9", false), ("2600::1", true), ("192.168.1.1", true), ("fd00::1", false)] {
            assert_eq!(ask(text, v4).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text}");
        }
    }

    #[test]
    fn what_answers_another_question_is_passed_over() {
        let query = question(7, "my.test", TYPE::A).unwrap();
        let mut packet = Packet::parse(&query).unwrap().into_reply();
        packet.answers.push(simple_dns::ResourceRecord::new(
            Name::new_unchecked("my.test"),
            CLASS::IN,
            1,
            RData::A(simple_dns::rdata::A::from(Ipv4Addr::new(9, 9, 9, 9))),
        ));
        let message = packet.build_bytes_vec().unwrap();
        let found = answer(&message, 7, "MY.test", TYPE::A).unwrap().unwrap();
        assert_eq!(found.to_string(), "9.9.9.9");
        assert!(answer(&message, 8, "my.test", TYPE::A).is_none());
        assert!(answer(&message, 7, "other.test", TYPE::A).is_none());
        assert!(answer(&message, 7, "my.test", TYPE::AAAA).is_none());
        assert!(answer(&question(7, "my.test", TYPE::A).unwrap(), 7, "my.test", TYPE::A).is_none());
        for length in 0..message.len() {
            // Whatever is cut off: no address out of nothing, and no panic.
            assert!(answer(&message[..length], 7, "my.test", TYPE::A).is_none_or(|found| found.is_err()));
        }
    }
}
