//! A new chain in several commits, for where one is too long.
//!
//! iptables-nft sends a commit as one netlink message. Without CAP_NET_ADMIN outside of all user namespaces, as in a
//! container, it cannot raise the socket's buffer beyond `net.core.wmem_max`, and some hundred rules no longer fit.

use crate::kernel::Rule;
use crate::plan::{ChainPlan, FamilyPlan};

/// Grants in one commit, at some 1.2 kB each: well within the kernel's default of 208 KiB.
const GRANTS_IN_A_PIECE: usize = 64;

/// The same as `plan` in several: first everything but the grants, so that nothing is open meanwhile that should be
/// closed, then the grants. `None` if there are not enough of them for pieces to help.
pub fn in_pieces(plan: &FamilyPlan) -> Option<Vec<FamilyPlan>> {
    let ChainPlan::Fill(rules) = &plan.chain else { return None };
    let (mut frame, mut grants, mut at) = (Vec::new(), Vec::new(), 1);
    for counted in rules {
        match &counted.rule {
            Rule::Grant(key, span) => grants.push((key.clone(), *span, counted.counters)),
            _ => {
                // The grants are one block: what stands before it is complete when the first is met.
                at += usize::from(grants.is_empty());
                frame.push(counted.clone());
            }
        }
    }
    if grants.len() <= GRANTS_IN_A_PIECE {
        return None;
    }
    let mut pieces =
        vec![FamilyPlan { chain: ChainPlan::Fill(frame), jump: plan.jump, ..FamilyPlan::default() }];
    pieces.extend(grants.chunks(GRANTS_IN_A_PIECE).map(|piece| {
        let chain = ChainPlan::Grants { remove: Vec::new(), insert: piece.to_vec(), at };
        FamilyPlan { chain, ..FamilyPlan::default() }
    }));
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::memory::Memory;
    use crate::{Firewall, GrantKey, Kernel, Lifetime, Plan, Protection, Wanted, reconcile};

    #[test]
    fn pieces_come_to_the_same() {
        let from = SystemTime::now();
        let lifetime = Lifetime { from, until: from + Duration::from_secs(60) };
        let endpoint = "tcp/22".parse().expect("an endpoint");
        let client: spa_proto::ClientName = "alice".parse().expect("a name");
        let mut wanted = Wanted {
            protection: Some(Protection {
                spa_port: 62201,
                protect: true,
                except: Vec::new(),
                services: [endpoint].into(),
                provisional_until: None,
            }),
            ..Wanted::default()
        };
        for n in 0..200 {
            let whole = reconcile(&wanted, &Kernel::default(), from);
            assert_eq!(
                in_pieces(&whole.v4).map(|pieces| pieces.len()),
                (n > 64).then_some(1 + (n as usize).div_ceil(64))
            );
            if let Some(pieces) = in_pieces(&whole.v4) {
                let mut memory = Memory::new();
                for v4 in pieces {
                    memory.apply(&Plan { v4, ..Plan::default() }).expect("the piece fits");
                }
                assert!(reconcile(&wanted, &memory.kernel, from).v4.is_empty());
            }
            wanted.grants.insert(GrantKey::new(client.clone(), [10, 0, 0, n].into(), endpoint), lifetime);
        }
    }
}
