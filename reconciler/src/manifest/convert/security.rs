//! `securityContext` of pods and containers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;

use crate::{manifest::at::At, object::ContainerSecurity};

const NO_WINDOWS: &str = "only Windows reads this, and all nodes are Linux: remove it";
const SE_LINUX: &str = "keep the pod out of the configured paths where the labels that Docker gives by itself \
                        (selinux-enabled) are not enough";
const FS_GROUP_CHANGE: &[(&str, ())] = &[("Always", ()), ("OnRootMismatch", ())];
/// The sysctls that the kubelet allows by itself (as of Kubernetes 1.34).
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const WEAKER: &str = "leave the pod with more rights than you asked for";

/// The parts of a pod's `securityContext` that apply to all its containers.
#[derive(Clone, Default)]
pub(super) struct PodSecurity {
    run_as_user: Option<i64>,
    run_as_group: Option<i64>,
    run_as_non_root: Option<bool>,
    supplemental_groups: Vec<u32>,
    pub(super) sysctls: BTreeMap<String, String>,
    pub(super) fs_group: Option<u32>,
}

/// A pod's `securityContext`.
pub(super) fn pod_security(context: Option<core::PodSecurityContext>, at: &At<'_>) -> PodSecurity {
    let Some(context) = context else {
        return PodSecurity::default();
    };
    let core::PodSecurityContext {
        app_armor_profile,
        fs_group,
        fs_group_change_policy,
        run_as_group,
        run_as_non_root,
        run_as_user,
        se_linux_change_policy,
        se_linux_options,
        seccomp_profile,
        supplemental_groups,
        supplemental_groups_policy,
        sysctls,
        windows_options,
    } = context;

    app_armor(app_armor_profile, at);
    seccomp(seccomp_profile, at);
    // The group is set when a volume is made, so both policies do the same.
    at.field("fsGroupChangePolicy")
        .word(fs_group_change_policy.as_deref(), FS_GROUP_CHANGE, ());
    at.field("seLinuxOptions")
        .refuse(se_linux_options.is_some(), WEAKER, SE_LINUX);
    at.field("seLinuxChangePolicy").ignore(
        se_linux_change_policy.is_some(),
        "seLinuxOptions is not supported yet",
    );
    at.field("supplementalGroupsPolicy").refuse(
        supplemental_groups_policy.is_some_and(|policy| policy != "Merge"),
        WEAKER,
        "use an image whose user is in no further groups in its place",
    );
    if windows_options.is_some() {
        at.field("windowsOptions").error(NO_WINDOWS);
    }

    let groups = at.field("supplementalGroups");
    let supplemental_groups = supplemental_groups.unwrap_or_default().into_iter();
    PodSecurity {
        run_as_user: id(run_as_user, &at.field("runAsUser")),
        run_as_group: id(run_as_group, &at.field("runAsGroup")),
        run_as_non_root,
        supplemental_groups: supplemental_groups
            .enumerate()
            .map(|(index, group)| group_id(group, &groups.index(index)))
            .collect(),
        sysctls: safe_sysctls(sysctls, &at.field("sysctls")),
        fs_group: fs_group.map(|group| group_id(group, &at.field("fsGroup"))),
    }
}

/// `sysctls`: those that act on the pod alone, which Kubernetes calls safe.
fn safe_sysctls(sysctls: Option<Vec<core::Sysctl>>, at: &At<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (index, core::Sysctl { name, value }) in sysctls.into_iter().flatten().enumerate() {
        // The kernel accepts both spellings.
        let name = name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            at.index(index).error(format_args!(
                "{name} may change the whole host: set it on the hosts (sysctl.d), and give the pod hostNetwork where \
                 it is a setting of the network"
            ));
        } else if found.insert(name.clone(), value).is_some() {
            at.index(index)
                .error(format_args!("{name} is there twice: remove one"));
        }
    }
    found
}

/// A container's `securityContext`, which overrides the pod's.
pub(super) fn container_security(
    context: Option<core::SecurityContext>,
    pod: &PodSecurity,
    at: &At<'_>,
) -> ContainerSecurity {
    let core::SecurityContext {
        allow_privilege_escalation,
        app_armor_profile,
        capabilities,
        privileged,
        proc_mount,
        read_only_root_filesystem,
        run_as_group,
        run_as_non_root,
        run_as_user,
        se_linux_options,
        seccomp_profile,
        windows_options,
    } = context.unwrap_or_default();

    app_armor(app_armor_profile, at);
    seccomp(seccomp_profile, at);
    at.field("procMount").refuse(
        proc_mount.is_some_and(|mount| mount != "Default"),
        "mask parts of /proc",
        "run the container privileged in its place if it may have all rights of the host",
    );
    at.field("seLinuxOptions")
        .refuse(se_linux_options.is_some(), WEAKER, SE_LINUX);
    if windows_options.is_some() {
        at.field("windowsOptions").error(NO_WINDOWS);
    }

    let core::Capabilities { add, drop } = capabilities.unwrap_or_default();
    // Kubernetes compares with exactly this spelling (ValidateSecurityContext), and accepts
    // SYS_ADMIN.
    let admin = add.iter().flatten().any(|name| name == "CAP_SYS_ADMIN");
    let add_capabilities = capability_names(add, &at.field("capabilities").field("add"));
    let drop_capabilities = capability_names(drop, &at.field("capabilities").field("drop"));

    let privileged = privileged.unwrap_or(false);
    let no_new_privileges = allow_privilege_escalation == Some(false);
    if no_new_privileges && (privileged || admin) {
        at.field("allowPrivilegeEscalation").error(
            "false contradicts privileged and CAP_SYS_ADMIN, which escalate by themselves: take these away, or write \
             true",
        );
    }

    let run_as_user = id(run_as_user, &at.field("runAsUser")).or(pod.run_as_user);
    let non_root = run_as_non_root.or(pod.run_as_non_root) == Some(true);
    if non_root && run_as_user == Some(0) {
        at.field("runAsNonRoot")
            .error("true contradicts runAsUser 0, which is root: write the number of another user");
    }
    let groups: BTreeSet<u32> = pod
        .supplemental_groups
        .iter()
        .copied()
        .chain(pod.fs_group)
        .collect();

    ContainerSecurity {
        privileged,
        run_as_user,
        run_as_non_root: non_root && run_as_user.is_none(),
        groups: groups.into_iter().collect(),
        run_as_group: id(run_as_group, &at.field("runAsGroup")).or(pod.run_as_group),
        read_only_root: read_only_root_filesystem.unwrap_or(false),
        no_new_privileges,
        add_capabilities,
        drop_capabilities,
    }
}

/// `RuntimeDefault` means Docker's default profile.
fn seccomp(profile: Option<core::SeccompProfile>, at: &At<'_>) {
    if let Some(core::SeccompProfile {
        localhost_profile,
        type_,
    }) = profile
    {
        let default = type_ == "RuntimeDefault" && localhost_profile.is_none();
        at.field("seccompProfile").refuse(
            !default,
            "run the container with Docker's default profile",
            "make the profile Docker's default on the hosts (seccomp-profile in daemon.json), and write RuntimeDefault",
        );
    }
}

/// `RuntimeDefault` means Docker's default profile.
fn app_armor(profile: Option<core::AppArmorProfile>, at: &At<'_>) {
    if let Some(core::AppArmorProfile {
        localhost_profile,
        type_,
    }) = profile
    {
        let default = type_ == "RuntimeDefault" && localhost_profile.is_none();
        at.field("appArmorProfile").refuse(
            !default,
            "run the container with Docker's default profile",
            "write RuntimeDefault where that profile will do, and else keep the pod out of the configured paths",
        );
    }
}

fn group_id(id: i64, at: &At<'_>) -> u32 {
    u32::try_from(at.within(id, 0, i64::from(i32::MAX))).unwrap_or_default()
}

fn id(id: Option<i64>, at: &At<'_>) -> Option<i64> {
    id.map(|id| at.within(id, 0, i64::from(i32::MAX)))
}

/// Capability names in upper case, as the engine expects them; container runtimes accept any case.
fn capability_names(names: Option<Vec<String>>, at: &At<'_>) -> Vec<String> {
    let mut names = names.unwrap_or_default();
    for (index, name) in names.iter_mut().enumerate() {
        name.make_ascii_uppercase();
        let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || !name.bytes().all(allowed) {
            at.index(index).error(format_args!(
                "{name:?} is not a capability: write it like NET_ADMIN, or ALL"
            ));
        }
    }
    names
}
