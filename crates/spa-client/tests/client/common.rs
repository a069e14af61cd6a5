//! A home directory with one host in it, and a server of a sort: it opens packets and grants nothing by itself.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use spa_proto::{
    ClientKeyFile, Cloak, CloakKey, GateKeys, Knock, MAX_PACKET, Message, Opener, Psk, SecretKey, epoch,
};

/// Longest that any test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Home {
    pub directory: tempfile::TempDir,
}

impl Home {
    pub fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// With the host `bastion`, whose server has this SPA port.
    pub fn with_host(address: &str, spa_port: u16, services: &str) -> Self {
        let home = Self::empty();
        std::fs::create_dir_all(home.path(".config/spa")).unwrap();
        let server = server_secret().public_key();
        let text = format!(
            "[hosts.bastion]\naddress = \"{address}\"\nport = {spa_port}\nserver-key = \"{server}\"\n\
             key-file = \"bastion.key\"\nservices = {services}\n"
        );
        std::fs::write(home.config(), text).unwrap();
        write_private(&home.path(".config/spa/bastion.key"), &client_keys().to_text());
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path(".config/spa/client.toml")
    }

    /// The command, whose words are separated by spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spa-client"));
        command.args(line.split_whitespace()).stdin(Stdio::null());
        command.env("HOME", self.directory.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        command
    }

    pub fn run(&self, line: &str) -> Ran {
        Ran::from(self.command(line).output().unwrap())
    }

    /// With this on standard input.
    pub fn run_with(&self, line: &str, input: &str) -> Ran {
        let file = self.path("input");
        write_private(&file, input);
        Ran::from(self.command(line).stdin(std::fs::File::open(file).unwrap()).output().unwrap())
    }
}

pub fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// Checks the exit code and that standard error has each of the pieces.
    #[track_caller]
    pub fn fails(&self, code: i32, pieces: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for piece in pieces {
            assert!(self.err.contains(piece), "no {piece:?} in: {}", self.err);
        }
    }

    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

pub fn server_secret() -> SecretKey {
    SecretKey::from_bytes([1; 32])
}

pub fn client_keys() -> ClientKeyFile {
    ClientKeyFile {
        secret: SecretKey::from_bytes([2; 32]),
        psk: Psk::from_bytes([3; 32]),
        cloaks: vec![CloakKey::from_bytes([4; 32]), CloakKey::from_bytes([5; 32])],
    }
}

/// A packet as it came, and what it says.
pub struct Received {
    pub packet: Vec<u8>,
    pub knock: Knock,
    pub ephemeral: [u8; 32],
}

pub struct Server {
    socket: UdpSocket,
}

impl Server {
    pub fn new(address: &str) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub fn home(&self, services: &str) -> Home {
        Home::with_host(&self.address().ip().to_string(), self.address().port(), services)
    }

    /// The next packet, opened as a server does.
    pub fn receive(&self) -> Received {
        let mut buffer = [0; 2 * MAX_PACKET];
        let length = self.socket.recv(&mut buffer).expect("a packet comes");
        let packet = buffer[..length].to_vec();
        let (server, client) = (server_secret(), client_keys());
        let envelope = Cloak::new(&client.cloaks[0], &server.public_key()).open(&packet).expect("T is right");
        let client_public = client.secret.public_key();
        let gate = GateKeys::new(&client.psk, &server.public_key(), &client_public);
        assert_eq!(envelope.hint(), gate.hint(epoch(envelope.time())));
        assert!(gate.admits(&envelope));
        let message = Message {
            nonce: &envelope.nonce(),
            time: envelope.time(),
            hint: &envelope.hint(),
            ephemeral: &envelope.ephemeral(),
            es: &server.diffie_hellman(&envelope.ephemeral()).unwrap(),
            ciphertext: envelope.ciphertext(),
        };
        let knock = Opener::new(&server, &client_public, &client.psk).unwrap().open(&message).unwrap();
        Received { packet, knock, ephemeral: envelope.ephemeral() }
    }

    /// Whether no packet waits.
    pub fn is_quiet(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let quiet = self.socket.recv(&mut [0; 1]).is_err();
        self.socket.set_nonblocking(false).unwrap();
        quiet
    }
}

/// A TCP port of 127.0.0.1 on which nobody listens.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
