//! The real sshd and ssh: a login after a knock, through ProxyCommand, and sessions that outlive what let them in.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use spa_tests::probe::{PATIENCE, Probe};
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Sshd, Topology, Variant, for_each_variant_and_family, succeeded};

for_each_variant_and_family!(
    logs_in_after_a_knock,
    an_idle_session_survives_the_first_start,
    knocks_by_itself
);

/// An ssh session that echoes lines.
struct Session(Child);

impl Session {
    fn open(mut ssh: Command, address: &str) -> Self {
        let child = ssh.args([address, "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut session = Self(child.expect("ssh runs"));
        assert!(session.echoes(), "the session begins");
        session
    }

    fn echoes(&mut self) -> bool {
        let mut line = String::new();
        let (input, output) = (self.0.stdin.as_mut().expect("piped"), self.0.stdout.as_mut().expect("piped"));
        input.write_all(b"echo\n").is_ok()
            && BufReader::with_capacity(5, output).read_line(&mut line).is_ok()
            && line == "echo\n"
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail where it has ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn logs_in_after_a_knock(variant: Variant, family: Family) {
    let topology = Topology::new();
    let sshd = Sshd::start(&topology);
    // Two logins have to fit in, on a busy machine too.
    let settings = Settings { open_for: "6s", ..Settings::new(variant) };
    let scene = Scene::on(topology, &settings, family);
    let (client, address) = (&scene.topology.client, scene.address.to_string());
    let ssh = || sshd.ssh(&client.ns);
    let refused = ssh().args([&address, "true"]).output().expect("ssh runs");
    assert_eq!(refused.status.code(), Some(255), "closed before");
    scene.alice.must(&["open", "ssh", "--wait"]);
    let output = ssh().args([&address, "echo $SSH_CONNECTION"]).output().expect("ssh runs");
    assert!(succeeded("ssh", &output).starts_with(&client.address(family).to_string()));
    let mut session = Session::open(ssh(), &address);
    scene.wait_closed(PATIENCE);
    assert!(session.echoes(), "the session outlives the grant");
}

fn an_idle_session_survives_the_first_start(variant: Variant, family: Family) {
    let topology = Topology::new();
    let sshd = Sshd::start(&topology);
    let address = topology.server.address(family).to_string();
    let mut session = Session::open(sshd.ssh(&topology.client.ns), &address);
    let scene = Scene::on(topology, &Settings::new(variant), family);
    assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent);
    assert!(session.echoes(), "the administrator is not cut off");
}

fn knocks_by_itself(variant: Variant, family: Family) {
    let topology = Topology::new();
    let sshd = Sshd::start(&topology);
    let scene = Scene::on(topology, &Settings::new(variant), family);
    let program = spa_tests::binary("spa-client");
    let config = scene.alice.config();
    for (host, arguments) in [("bastion", "connect %n %p"), (&*scene.address.to_string(), "connect %h %p")] {
        let proxy = format!("ProxyCommand={} --config {} {arguments}", program.display(), config.display());
        let output = sshd
            .ssh(&scene.topology.client.ns)
            .env("HOME", scene.alice.file(""))
            .args(["-o", &proxy, host, "echo in"])
            .output()
            .expect("ssh runs");
        assert_eq!(succeeded(&format!("ssh -o {proxy}"), &output), "in\n");
        scene.wait_closed(PATIENCE);
    }
    assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
    // The connection itself, handed to ssh: no process stays between.
    let proxy =
        format!("ProxyCommand={} --config {} connect --fdpass %n %p", program.display(), config.display());
    let output = sshd
        .ssh(&scene.topology.client.ns)
        .env("HOME", scene.alice.file(""))
        .args(["-o", &proxy, "-o", "ProxyUseFdpass=yes", "bastion", "echo in"])
        .output()
        .expect("ssh runs");
    assert_eq!(succeeded("ssh with ProxyUseFdpass", &output), "in\n");
}
