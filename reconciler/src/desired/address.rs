//! Cluster addresses that Services request.

use std::collections::BTreeMap;

use super::{CheckSettings, ObjectProblems, ProblemObject};
use crate::object::ServiceKind;

pub(super) fn check(findings: &mut ObjectProblems<'_>, settings: &CheckSettings) {
    let range = settings.service_range;
    let mut taken = BTreeMap::new();
    for (key, service) in &findings.objects.services {
        let (ServiceKind::ClusterIp {
            address: Some(address),
        }
        | ServiceKind::NodePort {
            address: Some(address),
        }
        | ServiceKind::LoadBalancer {
            address: Some(address),
        }) = service.kind
        else {
            continue;
        };
        let problem = if !range.contains(&address) {
            Some(format!(
                "{address} is outside the service range {range}: choose one in it, or leave it out"
            ))
        } else if address == range.network() || address == range.broadcast() {
            Some(format!(
                "{address} is an end of the service range {range}: choose another, or leave it out"
            ))
        } else if settings.reserved_addresses.contains(&address) {
            Some(format!(
                "{address} is the daemon's own: choose another, or leave it out"
            ))
        } else {
            taken.get(&address).map(|other| {
                let position = findings.position(&ProblemObject::service(other));
                format!(
                    "{address} is taken by the Service {other} ({position}): choose another, or leave it out"
                )
            })
        };
        if let Some(message) = problem {
            findings.error(
                &ProblemObject::service(key),
                "spec.clusterIP".to_owned(),
                message,
            );
        }
        taken.entry(address).or_insert_with(|| key.clone());
    }
}
