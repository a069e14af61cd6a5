//! The part of the scripts that a fresh machine goes through: which packages lack, and what is done about it. The
//! functions of tests/lib.sh run against an apt-get of the test's own, which notes how it was called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use spa_tests::{WORK, in_namespace, is_root, sh, skip};

/// An apt-get that notes its arguments and whether services may start, and "installs" what a package has.
const APT: &str = r#"#!/bin/sh
echo "apt-get $*" >>"$APT_LOG"
[ ! -x /usr/sbin/policy-rc.d ] || { /usr/sbin/policy-rc.d; echo "policy-rc.d says $?" >>"$APT_LOG"; }
[ "$1" = install ] || exit 0
for word; do
    case $word in
        wanted-package) printf '#!/bin/sh\n' >"$APT_BIN/wanted-command"; chmod 755 "$APT_BIN/wanted-command" ;;
        broken-package) echo "E: Unable to locate package broken-package" >&2; exit 100 ;;
    esac
done
"#;

struct Machine {
    bin: String,
    log: String,
}

impl Machine {
    /// `/usr/sbin` is a copy on write, so that the policy that the script lays there stays in this test.
    fn new() -> Self {
        let (bin, log) = (format!("{WORK}/bin"), format!("{WORK}/apt.log"));
        fs::create_dir_all(&bin).expect("a directory on the tmpfs");
        let apt = Path::new(&bin).join("apt-get");
        fs::write(&apt, APT).expect("written");
        fs::set_permissions(&apt, PermissionsExt::from_mode(0o755)).expect("ours");
        sh(&format!(
            "mkdir {WORK}/upper {WORK}/work && mount -t overlay overlay /usr/sbin \
             -o lowerdir=/usr/sbin,upperdir={WORK}/upper,workdir={WORK}/work"
        ));
        let _ = fs::remove_file(policy()); // a container's image may have one
        Self { bin, log }
    }

    /// Runs a line of bash after tests/lib.sh.
    fn run(&self, line: &str) -> Output {
        let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib.sh");
        let path = format!("{}:{}", self.bin, std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!(". {}; {line}; echo went on", lib.display())]);
        bash.env("PATH", path)
            .env("APT_LOG", &self.log)
            .env("APT_BIN", &self.bin)
            .output()
            .expect("bash runs")
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn policy() -> &'static Path {
    Path::new("/usr/sbin/policy-rc.d")
}

#[test]
fn root_installs_what_lacks_and_starts_no_service() {
    in_namespace(|| {
        let machine = Machine::new();
        let output = machine.run("require_commands <<<'wanted-command wanted-package'");
        let all = said(&output);
        assert!(output.status.success() && all.contains("went on"), "{all}");
        assert!(all.contains("apt-get install --no-install-recommends wanted-package"), "it says so: {all}");
        let log = machine.log();
        let expected = "apt-get update -qq\npolicy-rc.d says 101\n\
                        apt-get install -y -qq --no-install-recommends wanted-package\npolicy-rc.d says 101\n";
        assert_eq!(log, expected, "services are forbidden to start meanwhile");
        assert!(!policy().exists(), "and the policy is gone afterwards");
        // Nothing lacks any more: nothing is done.
        let output = machine.run("require_commands <<<'wanted-command wanted-package'");
        assert!(output.status.success() && machine.log() == log, "{}", said(&output));
    });
}

#[test]
fn a_policy_of_the_administrator_is_left_alone() {
    in_namespace(|| {
        let machine = Machine::new();
        fs::write(policy(), "#!/bin/sh\nexit 7\n").expect("written");
        fs::set_permissions(policy(), PermissionsExt::from_mode(0o755)).expect("ours");
        let output = machine.run("require_commands <<<'wanted-command wanted-package'");
        assert!(output.status.success(), "{}", said(&output));
        assert!(machine.log().contains("policy-rc.d says 7"));
        assert_eq!(fs::read_to_string(policy()).expect("it is there"), "#!/bin/sh\nexit 7\n");
    });
}

#[test]
fn an_installation_that_fails_ends_with_69_and_leaves_no_policy() {
    in_namespace(|| {
        let machine = Machine::new();
        let output = machine.run("require_commands <<<'other-command broken-package'");
        let all = said(&output);
        assert_eq!(output.status.code(), Some(69), "{all}");
        assert!(all.contains("Unable to locate package") && all.contains("status 100"), "{all}");
        assert!(!all.contains("went on") && !policy().exists(), "{all}");
        // Installed, and the command still not there.
        let output = machine.run("require_commands <<<'third-command hollow-package'");
        assert_eq!(output.status.code(), Some(69));
        assert!(said(&output).contains("Still missing after the installation: hollow-package"));
    });
}

/// An ordinary user gets the line to run, and nothing is tried. Runs in no namespace of its own: there he would be root.
#[test]
fn an_ordinary_user_is_told_the_line() {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib.sh");
    let text = fs::read_to_string(&lib).expect("it is part of the checkout");
    let run = |script: &str| {
        let mut bash = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash"]);
            command
        } else {
            Command::new("bash")
        };
        bash.args(["-c", &format!("{text}\n{script}\necho went on")]).current_dir("/").output()
    };
    let Ok(output) = run("ALSO=also-package require_commands <<'END'\nno-such-command wanted-package\n\
                          no-such-other other-package\nls coreutils\nEND")
    else {
        return skip("an_ordinary_user_is_told_the_line", "setpriv is not installed");
    };
    let all = said(&output);
    assert_eq!(output.status.code(), Some(69), "{all}");
    // All at once, on a machine that has never fetched a list of packages.
    let line = "\n    apt-get update; apt-get install --no-install-recommends other-package wanted-package also-package";
    assert!(all.contains(line), "{all}");
    assert!(!all.contains("went on") && !all.contains("coreutils"), "{all}");
    // Where only what can be done without lacks, it is named, and the run goes on.
    let all = said(&run("ALSO=also-package require_commands <<<'ls coreutils'").expect("bash runs"));
    assert!(all.contains("will be skipped") && all.contains("also-package"), "{all}");
    assert!(all.contains("went on"), "{all}");
}
