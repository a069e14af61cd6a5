//! What is sent, and what comes of it, against a server of a sort on the loopback address.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use crate::common::{Home, PATIENCE, Ran, Server, free_port};
use spa_proto::{Action, Address, Requests};

fn requests(words: &[&str]) -> Requests {
    let request = |word: &&str| match word.parse() {
        Ok(endpoint) => spa_proto::Request::Endpoint(endpoint),
        Err(_) => spa_proto::Request::Service(word.parse().unwrap()),
    };
    Requests::new(words.iter().map(request)).unwrap()
}

#[test]
fn one_packet_says_what_was_asked() {
    let server = Server::new("127.0.0.1:0");
    let home = server.home("{ ssh = \"tcp/22\" }");
    let ran = home.run("open ssh udp/51820 ssh --for 5m");
    assert_eq!((ran.succeeds().out.as_str(), ran.err.as_str()), ("", ""), "a pipe hears nothing");
    let knock = server.receive().knock;
    let wanted = Action::Open { requests: requests(&["ssh", "udp/51820"]), seconds: 300 };
    assert_eq!((knock.action, knock.address), (wanted, Address::Observed));
    assert!(server.is_quiet());

    let spoken = home.run("open ssh -v");
    assert!(spoken.succeeds().err.contains("cannot be seen from here (use --wait)"), "{spoken:?}");
    assert!(spoken.err.contains(&format!("knocked at {} (observed)", server.address())), "{spoken:?}");
    let next = server.receive().knock;
    assert_eq!(next.action, Action::Open { requests: requests(&["ssh"]), seconds: 0 });
    assert!(next.counter > knock.counter);

    home.run("close").succeeds();
    assert_eq!(server.receive().knock.action, Action::Close { requests: Requests::default() });
    home.run("close ssh").succeeds();
    assert_eq!(server.receive().knock.action, Action::Close { requests: requests(&["ssh"]) });
}

#[test]
fn the_source_may_be_chosen() {
    let server = Server::new("127.0.0.1:0");
    let home = server.home("{}");
    let other = "198.51.100.7";
    for (source, address) in [
        ("auto", Address::Observed), // a loopback address is not global
        ("observed", Address::Observed),
        ("bound", Address::Bound("127.0.0.1".parse().unwrap())),
        (other, Address::Explicit(other.parse().unwrap())),
    ] {
        home.run(&format!("open tcp/22 --source {source}")).succeeds();
        assert_eq!(server.receive().knock.address, address, "{source}");
    }
    home.run("open tcp/22 -6").fails(69, &["no address of the wanted family"]);
}

#[test]
fn every_address_of_a_name_gets_a_packet_of_its_own() {
    spa_tests::in_namespace(|| {
        std::fs::write("/run/hosts", "127.0.0.1 both.test\n::1 both.test\n").unwrap();
        spa_tests::sh("mount --bind /run/hosts /etc/hosts");
        let v4 = Server::new("127.0.0.1:0");
        let port = v4.address().port();
        let v6 = Server::new(&format!("[::1]:{port}"));
        let home = Home::with_host("both.test", port, "{}");
        home.run("open tcp/22").succeeds();
        let (first, second) = (v4.receive().knock, v6.receive().knock);
        assert_eq!(first.action, second.action);
        assert_ne!(first.counter, second.counter);
        home.run("open tcp/22 -6").succeeds();
        v6.receive();
        assert!(v4.is_quiet());
        // The one that listens wins.
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = thread::spawn(move || listener.accept().unwrap().0.write_all(b"six").unwrap());
        assert_eq!(home.run(&format!("connect both.test {port}")).succeeds().out, "six");
        serving.join().unwrap();
    });
}

#[test]
fn waiting_sends_fresh_packets_until_the_port_answers() {
    let (server, port) = (Server::new("127.0.0.1:0"), free_port());
    let home = server.home(&format!("{{ ssh = \"tcp/{port}\" }}"));
    let (ran, packets) = thread::scope(|scope| {
        let client = scope.spawn(|| home.run("open ssh --wait=20s --json -v"));
        let packets: Vec<_> = (0..3).map(|_| server.receive()).collect();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let ran = client.join().unwrap();
        drop(listener);
        (ran, packets)
    });
    assert!(ran.succeeds().err.contains(&format!("tcp/{port} is open at 127.0.0.1")), "{ran:?}");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&json["state"], &json["host"]), (&"open".into(), &"bastion".into()));
    assert!(packets.windows(2).all(|pair| pair[0].knock.counter < pair[1].knock.counter));
    assert!(packets.iter().all(|packet| packet.knock.action == packets[0].knock.action));
    let distinct = |parts: Vec<&[u8]>| parts.into_iter().collect::<HashSet<_>>().len();
    assert_eq!(distinct(packets.iter().map(|packet| &packet.ephemeral[..]).collect()), 3);
    // In every 16 bytes of two packets something differs: nothing is a constant.
    for chunk in 0..16 {
        assert_eq!(distinct(packets.iter().map(|packet| &packet.packet[chunk * 16..][..16]).collect()), 3);
    }
}

/// Runs the command on a terminal of 80 by 24 (script(1) makes one), and gives what came to the screen.
fn on_a_terminal(home: &Home, line: &str) -> String {
    let command = format!("stty cols 80 rows 24; exec {} {line}", env!("CARGO_BIN_EXE_spa-client"));
    let mut script = std::process::Command::new("script");
    script.args(["-q", "-e", "-f", "-c", &command, "/dev/null"]).stdin(Stdio::null());
    script.env("HOME", home.directory.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
    let output = script.output().expect("script(1), of bsdutils, runs");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_terminal_sees_what_is_done() {
    let (server, port) = (Server::new("127.0.0.1:0"), free_port());
    let home = server.home(&format!("{{ ssh = \"tcp/{port}\" }}"));
    let screen = thread::scope(|scope| {
        let client = scope.spawn(|| on_a_terminal(&home, "open ssh --wait=20s"));
        // The third packet is sent half a second after the first: by then the line that lives has been shown.
        (0..3).for_each(|_| drop(server.receive()));
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let screen = client.join().unwrap();
        drop(listener);
        screen
    });
    assert!(screen.contains(&format!("knocked at {} (observed)\r\n", server.address())), "{screen:?}");
    assert!(screen.contains(&format!("\rwaiting for tcp/{port}: 0.")), "{screen:?}");
    let last = screen.trim_end().rsplit(['\r', '\n']).next().unwrap();
    assert!(last.starts_with(&format!("tcp/{port} is open at 127.0.0.1 after ")), "{screen:?}");
    assert!(!screen.contains('\x1b'), "no escape sequences: {screen:?}");
    assert!(screen.split(['\r', '\n']).all(|line| line.len() < 80), "{screen:?}");
    assert_eq!(on_a_terminal(&home, "open ssh -q"), "", "quiet is quiet");
}

#[test]
fn details_are_told_when_asked_for() {
    let server = Server::new("127.0.0.1:0");
    let home = server.home("{}");
    let ran = home.run("open tcp/22 -v --json");
    let json: serde_json::Value = serde_json::from_str(&ran.succeeds().out).unwrap();
    let (packet, sent) = (server.receive(), &json["sent"][0]);
    assert_eq!(sent["bytes"], packet.packet.len());
    assert_eq!(sent["counter"], packet.knock.counter);
    let (seconds, nanos) = (packet.knock.counter / 1_000_000_000, packet.knock.counter % 1_000_000_000);
    for piece in [
        "from 127.0.0.1, observed: its local address is not global".to_owned(),
        format!("{} bytes; time by this clock {seconds}.{nanos:09}", packet.packet.len()),
    ] {
        assert!(ran.err.contains(&piece), "no {piece:?} in {ran:?}");
    }
    let (port, serving) = listen(|mut stream| stream.write_all(b"in").unwrap());
    let ran = home.run(&format!("connect 127.0.0.1 {port} -v"));
    assert!(
        ran.succeeds().err.contains("connected to 127.0.0.1") && ran.err.contains("bytes; time"),
        "{ran:?}"
    );
    serving.join().unwrap();
}

#[test]
fn the_example_of_the_library_knocks() {
    let Some(example) = std::path::Path::new(env!("CARGO_BIN_EXE_spa-client")).parent() else { return };
    let example = example.join("examples/knock");
    // cargo test builds the examples; a runner that was given this test alone may not have.
    if !example.exists() {
        return spa_tests::skip("the_example_of_the_library_knocks", "the example was not built");
    }
    let server = Server::new("127.0.0.1:0");
    let (port, serving) = listen(|mut stream| stream.write_all(b"SSH-2.0-test\r\n").unwrap());
    let home = server.home(&format!("{{ ssh = \"tcp/{port}\" }}"));
    let mut command = std::process::Command::new(example);
    command.args(["bastion", "ssh"]).env("HOME", home.directory.path());
    let ran = Ran::from(command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").output().unwrap());
    assert_eq!(ran.succeeds().out, "SSH-2.0-test\n");
    assert_eq!(server.receive().knock.action, Action::Open { requests: requests(&["ssh"]), seconds: 30 });
    serving.join().unwrap();
}

#[test]
fn a_refusal_is_not_taken_for_silence() {
    let server = Server::new("127.0.0.1:0");
    let home = server.home(&format!("{{ ssh = \"tcp/{}\" }}", free_port()));
    let ran = home.run("open ssh --wait=1s --json");
    ran.fails(69, &["refused every connection for 1 s", "nothing listens there"]);
    assert!(ran.out.contains("\"state\":\"refused\""), "{ran:?}");
    home.run("open udp/51820 --wait=1s").fails(75, &["only TCP ports can be waited for"]);
}

/// Answers one connection in a thread, and gives the port.
fn listen(serve: impl FnOnce(TcpStream) + Send + 'static) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

#[test]
fn connect_keeps_one_direction_when_the_other_ends() {
    let server = Server::new("127.0.0.1:0");
    let home = server.home("{}");
    // The client ends first.
    let (port, serving) = listen(|mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"question");
        stream.write_all(b"no line end").unwrap();
    });
    let ran = home.run_with(&format!("connect 127.0.0.1 {port}"), "question");
    assert_eq!((ran.succeeds().out.as_str(), ran.err.as_str()), ("no line end", ""));
    serving.join().unwrap();
    assert_eq!(
        server.receive().knock.action,
        Action::Open { requests: requests(&[&format!("tcp/{port}")]), seconds: 0 }
    );
    // The server ends first: the client's reader sees the end, and its writer may go on.
    let (port, serving) = listen(|mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last words");
    });
    let mut child = home
        .command(&format!("connect bastion {port}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut heard = String::new();
    child.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "bye");
    child.stdin.take().unwrap().write_all(b"last words").unwrap();
    assert!(child.wait().unwrap().success());
    serving.join().unwrap();
}

#[test]
fn connect_carries_much_data_both_ways() {
    const SIZE: usize = 8 << 20;
    let server = Server::new("127.0.0.1:0");
    let home = server.home("{}");
    let (port, serving) = listen(|stream| {
        let mut from = stream.try_clone().unwrap();
        let copied = std::io::copy(&mut from, &mut (&stream)).unwrap();
        assert_eq!(copied, SIZE as u64);
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let text: String = (0..SIZE / 8).map(|number| format!("{number:07}\n")).collect();
    let ran = home.run_with(&format!("connect bastion {port}"), &text);
    assert!(ran.succeeds().out == text, "what came back differs");
    serving.join().unwrap();
}

#[test]
fn connect_waits_for_the_grant() {
    let (server, port) = (Server::new("127.0.0.1:0"), free_port());
    let home = server.home(&format!("{{ ssh = \"tcp/{port}\" }}"));
    let serving = thread::spawn(move || {
        assert_eq!(server.receive().knock.action, Action::Open { requests: requests(&["ssh"]), seconds: 0 });
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.accept().unwrap().0.write_all(b"welcome").unwrap();
    });
    assert_eq!(home.run(&format!("connect bastion {port}")).succeeds().out, "welcome");
    serving.join().unwrap();
}

#[test]
fn fdpass_hands_the_connection_over() {
    use rustix::net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
        recvmsg, socketpair,
    };
    let server = Server::new("127.0.0.1:0");
    let home = server.home("{}");
    let (port, serving) = listen(|mut stream| stream.write_all(b"through").unwrap());
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let status = home.command(&format!("connect bastion {port} --fdpass")).stdout(theirs).status().unwrap();
    assert!(status.success());
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [9];
    let got = recvmsg(&ours, &mut [std::io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty());
    assert_eq!((got.unwrap().bytes, byte), (1, [0]));
    let passed: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let mut stream = TcpStream::from(passed.into_iter().next().unwrap());
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "through");
    serving.join().unwrap();
    // Without a socket to pass it over it says what is wrong.
    let (port, _serving) = listen(drop);
    home.run(&format!("connect bastion {port} --fdpass")).fails(74, &["ProxyUseFdpass"]);
}

/// `exec` with a shell script, its standard input open.
fn exec(home: &Home, options: &str, script: &str) -> Child {
    let mut command = home.command(&format!("exec {options} -- sh -c"));
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn exec_renews_and_closes_and_gives_the_status() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::new("127.0.0.1:0");
    let home = server.home(&format!("{{ ssh = \"{}\" }}", tcp(&listener)));
    let mut child = exec(&home, "ssh --for 1s", "read line; exit 7");
    let open = Action::Open { requests: requests(&["ssh"]), seconds: 1 };
    for _ in 0..4 {
        assert_eq!(server.receive().knock.action, open); // the first, and renewals for as long as it runs
    }
    drop(child.stdin.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.fails(7, &[]);
    let close = Action::Close { requests: requests(&["ssh"]) };
    let deadline = Instant::now() + PATIENCE;
    while server.receive().knock.action != close {
        assert!(Instant::now() < deadline, "it never closed");
    }
    assert!(server.is_quiet());

    let kept = home.run("exec ssh --keep -- false");
    kept.fails(1, &[]);
    assert!(matches!(server.receive().knock.action, Action::Open { seconds: 60, .. }));
    assert!(server.is_quiet(), "--keep closes nothing");
    home.run("exec ssh -- /nonexistent").fails(127, &["cannot run /nonexistent"]);
}

fn tcp(listener: &TcpListener) -> String {
    format!("tcp/{}", listener.local_addr().unwrap().port())
}

#[test]
fn exec_passes_signals_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::new("127.0.0.1:0");
    let home = server.home(&format!("{{ ssh = \"{}\" }}", tcp(&listener)));
    let script = "trap 'exit 9' TERM; echo ready; while :; do read line; done";
    let mut child = exec(&home, "ssh", script);
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // The shell runs its trap when read returns.
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    Ran::from(child.wait_with_output().unwrap()).fails(9, &[]);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_told_and_not_fatal() {
    let server = Server::new("127.0.0.1:0");
    let home = server.home("{}");
    std::fs::write(home.path(".local"), "in the way").unwrap();
    let ran = home.run("open tcp/22");
    assert!(ran.succeeds().err.contains("counter cannot be kept"), "{ran:?}");
    server.receive();
}
