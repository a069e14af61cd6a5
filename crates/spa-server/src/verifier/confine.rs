//! What the verifier gives up before it reads its first byte: every capability, every file and connection, and every
//! system call but those that it needs to receive, decide and hand over.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};
use rustix::process::{
    DumpableBehavior, Signal, getuid, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::error::{Exit, Failure, Outcome};
use crate::link::Confinement;

/// Confines this process for good. What the kernel cannot do (Landlock before 5.13) is left out and reported; dropping
/// capabilities and seccomp are not optional.
///
/// `start` makes all further threads: at a moment when nothing is left to give up but system calls, such as to make one.
/// Capabilities, users and Landlock's rules are a thread's own to the kernel, and come from the thread that makes it.
///
/// # Errors
/// Where the kernel refuses, or `start` fails.
pub fn confine<T>(start: impl FnOnce() -> std::io::Result<Option<T>>) -> Outcome<(Confinement, Option<T>)> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Exit::System, format_args!("verifier: cannot be confined: {what}: {error}"))
    };
    // Its first use asks for the vDSO and the page size, by system calls of its own. Before Linux 6.4 these are read from
    // /proc/self/auxv, which a process that is not dumpable may not read.
    let _ = crate::clock::now();
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| failed("parent death signal", &error))?;
    // Another process of the same user must not read the keys out of this one's memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| failed("not dumpable", &error))?;
    set_no_new_privs(true).map_err(|error| failed("no new privileges", &error))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|error| failed("capabilities", &error))?;
    let other_user = !getuid().is_root();
    let landlock = restrict_files().map_err(|error| failed("landlock", &error))?;
    let threads = start().map_err(|error| failed("threads", &error))?;
    let program = system_calls(threads.is_some()).map_err(|error| failed("seccomp", &error))?;
    // It fails where one thread cannot take the filter.
    seccompiler::apply_filter_all_threads(&program).map_err(|error| failed("seccomp", &error))?;
    Ok((Confinement { other_user, landlock, seccomp: true }, threads))
}

/// Denies every file and every TCP connection; true where the kernel does.
fn restrict_files() -> Result<bool, landlock::RulesetError> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// The system calls of the verifier's loop; any other kills the process, which the warden sees and says.
fn system_calls(has_threads: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let allowed = [
        // Receive, hand over, wait.
        libc::SYS_recvmmsg,
        libc::SYS_recvmsg,
        libc::SYS_sendto,
        libc::SYS_ppoll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        // A capture socket is checked when it comes, and asked for its drops.
        libc::SYS_getsockopt,
        libc::SYS_getsockname,
        libc::SYS_fcntl,
        libc::SYS_close,
        // Time, where the vDSO cannot tell; random keys of hash tables.
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        // Memory (and mmap, below).
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        // Standard error (a panic's message), signals, the end.
        libc::SYS_write,
        libc::SYS_futex,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigaction,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_tgkill,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut rules: BTreeMap<i64, Vec<_>> = allowed.into_iter().map(|call| (call, Vec::new())).collect();
    // For the rings of the capture sockets, and for memory; never to be executed.
    const PROTECTION: u8 = 2;
    let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    let not = SeccompCondition::new(PROTECTION, SeccompCmpArgLen::Dword, executable, 0)?;
    let never_executed = vec![SeccompRule::new(vec![not])?];
    rules.insert(libc::SYS_mmap, never_executed.clone());
    if has_threads {
        // The bells between them; waiting for one that is putting something in a queue; the heap of a thread, which glibc
        // grows in a way of its own, and which may no more be executed than that of mmap.
        rules.extend([libc::SYS_read, libc::SYS_sched_yield].map(|call| (call, Vec::new())));
        rules.insert(libc::SYS_mprotect, never_executed);
    }
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?.try_into()
}
