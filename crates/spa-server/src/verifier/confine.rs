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
/// # Errors
/// Where the kernel refuses.
pub fn confine() -> Outcome<Confinement> {
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
    let program = system_calls().map_err(|error| failed("seccomp", &error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed("seccomp", &error))?;
    Ok(Confinement { other_user, landlock, seccomp: true })
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
fn system_calls() -> Result<BpfProgram, seccompiler::BackendError> {
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
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![not])?]);
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?.try_into()
}
