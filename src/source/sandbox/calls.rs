//! Seccomp: the system calls that the process may not make.
//!
//! The filter lists what is refused, and not what is allowed: the C library may use other calls in
//! its next version, and a fetch must not fail for that. A refused call fails with EPERM.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{NetworkAccess, SandboxError};

/// fchmodat2, setxattrat and removexattrat have these numbers on every machine (Linux 6.6 and 6.13).
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;

/// Calls that are refused whatever their arguments are.
const REFUSED: &[c_long] = &[
    // Programs, processes and threads.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_clone,
    libc::SYS_clone3,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    // Mounts, namespaces and devices.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mknodat,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_personality,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_lookup_dcookie,
    libc::SYS_vmsplice,
    // Owners, modes, attributes and times: landlock does not restrict these (landlock(7), "Current
    // limitations"), and a file's owner may change them.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
    libc::SYS_utimensat,
    // Memory, queues and priorities that other processes share.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    // Servers.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_ON_THIS_MACHINE: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_ON_THIS_MACHINE: &[c_long] = &[];

/// The x32 interface has the numbers of x86_64 with this bit, and some of its own: without their
/// own entries they would pass (seccomp(2), "Caveats").
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
/// execve, ptrace, rt_sigqueueinfo, kexec_load, vmsplice, rt_tgsigqueueinfo, process_vm_readv,
/// process_vm_writev and execveat of x32 (linux/arch/x86/entry/syscalls/syscall_64.tbl).
#[cfg(target_arch = "x86_64")]
const X32_OWN: &[i64] = &[520, 521, 524, 528, 532, 536, 539, 540, 545];

/// Installs the filter for this thread.
pub(super) fn restrict(network: &NetworkAccess) -> Result<(), SandboxError> {
    let failed = |error: &dyn std::fmt::Display| SandboxError::Calls(error.to_string());
    let program = filter(network).map_err(|error| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}

fn filter(network: &NetworkAccess) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in REFUSED.iter().chain(REFUSED_ON_THIS_MACHINE) {
        rules.insert(*call, Vec::new());
    }

    match network {
        NetworkAccess::None => {
            rules.insert(libc::SYS_socket, Vec::new());
            rules.insert(libc::SYS_socketpair, Vec::new());
        }
        NetworkAccess::Remote { name_services, .. } => {
            let families = other_families(*name_services)?;
            rules.insert(libc::SYS_socketpair, vec![families.clone()]);
            rules.insert(libc::SYS_socket, vec![families, other_protocols()?]);
            // Landlock looks at connect(2), and not at a connection that the first data opens.
            for (call, flags) in [
                (libc::SYS_sendto, 3),
                (libc::SYS_sendmsg, 2),
                (libc::SYS_sendmmsg, 3),
            ] {
                rules.insert(call, vec![has_flag(flags, MSG_FASTOPEN)?]);
            }
        }
    }

    // A process may look at and change its own limits (first argument 0), and abort itself.
    rules.insert(libc::SYS_prlimit64, vec![differs(0, 0)?]);
    let own = rustix::process::getpid().as_raw_pid();
    rules.insert(libc::SYS_tgkill, vec![differs(0, own.unsigned_abs())?]);

    #[cfg(target_arch = "x86_64")]
    {
        let same: Vec<_> = rules
            .iter()
            .map(|(call, rules)| (call | X32, rules.clone()))
            .collect();
        rules.extend(same);
        rules.extend(X32_OWN.iter().map(|call| (call | X32, Vec::new())));
    }

    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let machine: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, machine)?.try_into()
}

/// sendto(2): the data opens the connection.
const MSG_FASTOPEN: u32 = 0x2000_0000;

/// All address families but those of names and of the remote. The resolver also asks for a netlink
/// socket, and goes on without one (glibc, sysdeps/unix/sysv/linux/check_pf.c).
fn other_families(name_services: bool) -> Result<SeccompRule, seccompiler::BackendError> {
    let names = name_services.then_some(libc::AF_UNIX);
    let allowed = [libc::AF_INET, libc::AF_INET6].into_iter().chain(names);
    differs_from_all(0, allowed)
}

/// All protocols but TCP and UDP. Landlock looks at connections of TCP, and not at those of MPTCP
/// and SCTP.
fn other_protocols() -> Result<SeccompRule, seccompiler::BackendError> {
    differs_from_all(2, [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP])
}

/// A rule that matches a call whose argument is none of these.
fn differs_from_all(
    argument: u8,
    values: impl IntoIterator<Item = i32>,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions: Result<Vec<_>, _> = values
        .into_iter()
        .map(|value| condition(argument, SeccompCmpOp::Ne, value.unsigned_abs()))
        .collect();
    SeccompRule::new(conditions?)
}

fn has_flag(argument: u8, flag: u32) -> Result<SeccompRule, seccompiler::BackendError> {
    let set = SeccompCmpOp::MaskedEq(flag.into());
    SeccompRule::new(vec![condition(argument, set, flag)?])
}

/// A rule that matches a call whose argument has another value.
fn differs(argument: u8, value: u32) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![condition(argument, SeccompCmpOp::Ne, value)?])
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u32,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
}
