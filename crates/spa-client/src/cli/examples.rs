//! What the help of the program and of each command ends with.

/// Of the program itself.
pub(super) const PROGRAM: &str = "\
Examples:
  spa-client import --name bastion < invite    take an administrator's invite
  spa-client open ssh --wait                   open ssh, and see that it opened
  spa-client ssh-config >> ~/.ssh/config       from then on ssh knocks by itself
  spa-client exec ssh -- rsync -a d bastion:   keep it open for one command
  spa-client check                             what could be wrong?

Progress is told on standard error where that is a terminal (or with -v);
a pipe hears of errors alone.

Exit codes:
   0  done
  64  wrong usage, or no such host or service
  65  bad data: the invite or the key file
  66  a file is missing
  69  no address or route, or the port refuses connections
  74  reading or writing failed
  75  could not tell whether the port opened
  77  a secret file is open to others, or a file may not be read
  78  the configuration is wrong
exec gives its command's exit code; 128 and the signal's number where one ended
it; 126 or 127 where it could not be run.";

pub(super) const OPEN: &str = "\
Examples:
  spa-client open ssh                       at the only host, for the usual time
  spa-client open ssh web --for 5m          both with one packet
  spa-client open ssh --host bastion --wait and see that it is open
  spa-client open ssh --wait=20s            the same, patiently
  spa-client open tcp/22 --source observed  for the address that the server sees
  spa-client open ssh --wait --json         for scripts

A server never answers a knock: without --wait nothing tells whether it opened.
With --wait the exit code is 0 where all TCP ports answered, 75 where one did
not, 69 where one refused.";

pub(super) const CLOSE: &str = "\
Examples:
  spa-client close               all that this client's key opened
  spa-client close ssh --host bastion

Established connections go on.";

pub(super) const CONNECT: &str = "\
Examples, in ~/.ssh/config (spa-client ssh-config prints them for a host):
  ProxyCommand spa-client connect %h %p

  ProxyCommand spa-client connect --fdpass %h %p
  ProxyUseFdpass yes

And by hand:
  spa-client connect bastion 22 -v < /dev/null

Standard output is the connection. Errors are one line; -v tells what is done.";

pub(super) const EXEC: &str = "\
Examples:
  spa-client exec ssh -- rsync -a dir bastion:
  spa-client exec web --host shop --for 5m -- curl https://shop.example.org/

Closes at the end, unless --keep. Signals are passed on to the command.";

pub(super) const KEYGEN: &str = "\
Example:
  spa-client keygen --name bastion    prints the public key, for the server's
                                      spa-server client add --public-key
  spa-client import --name bastion    takes the invite that comes back";

pub(super) const IMPORT: &str = "\
Examples:
  spa-client import --name bastion               paste the invite, press Enter
  spa-client import --name bastion < invite
  spa-client import --name bastion invite.txt --address 192.0.2.1
  spa-client import --update < invite            new keys, or a new cloak key, from the same server";

pub(super) const SSH_CONFIG: &str = "\
Examples:
  spa-client ssh-config bastion               a ProxyCommand: works everywhere
  spa-client ssh-config bastion --fdpass      the same, without copying (OpenSSH)
  spa-client ssh-config bastion --match-exec  ssh connects by itself
  spa-client ssh-config bastion >> ~/.ssh/config

After that ssh, scp, sftp, rsync and git knock by themselves.";

pub(super) const HOSTS: &str = "\
Examples:
  spa-client hosts
  spa-client hosts --json";

pub(super) const CHECK: &str = "\
Examples:
  spa-client check
  spa-client check --host bastion --json

Sends no knock. It looks at: the configuration; who can read the keys; what the
host's name resolves to; the route, and so the local address and the address
mode; the resolver of source = \"resolve\"; what this system knows of its clock.
The exit code is that of the first finding marked BAD, and 0 where none is.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(spa-client completions bash)    in ~/.bashrc
  source <(spa-client completions zsh)     in ~/.zshrc, after compinit
  spa-client completions fish > ~/.config/fish/completions/spa-client.fish

The shell asks spa-client while you type, which knows your hosts and services.";

pub(super) const MAN: &str = "\
Examples:
  spa-client man | man -l -          read it here
  spa-client man --dir /usr/share/man/man1";
