//! What a plan makes of a state: the model that drivers are held to.

use crate::kernel::{Counted, Elements, FamilyState, Rule};
use crate::plan::{ChainPlan, FamilyPlan};

impl FamilyState {
    /// The state after the plan, or why iptables would refuse it.
    pub(crate) fn after(&self, plan: &FamilyPlan) -> Result<Self, &'static str> {
        let mut next = self.clone();
        if plan.is_empty() {
            return Ok(next);
        }
        if self.missing {
            return Err("no such family");
        }
        match &plan.chain {
            ChainPlan::Keep | ChainPlan::Remove => {}
            ChainPlan::Grants { remove, insert, at } => {
                if !next.present {
                    return Err("no such chain");
                }
                for (key, span) in remove {
                    let gone = Rule::Grant(key.clone(), *span);
                    let found = next.rules.iter().position(|counted| counted.rule == gone);
                    next.rules.remove(found.ok_or("no such rule")?);
                }
                for (key, span, counters) in insert {
                    if *at == 0 || at - 1 > next.rules.len() {
                        return Err("index too big");
                    }
                    let rule = Rule::Grant(key.clone(), *span);
                    next.rules.insert(at - 1, Counted { rule, counters: *counters });
                }
            }
            ChainPlan::Fill(rules) => {
                next.present = true;
                next.rules.clone_from(rules);
            }
        }
        for _ in 0..plan.jump.remove {
            if next.jumps.is_empty() {
                return Err("no such jump");
            }
            next.jumps.remove(0);
            next.jumps.iter_mut().for_each(|position| *position -= 1);
        }
        if plan.jump.insert {
            next.jumps.iter_mut().for_each(|position| *position += 1);
            next.jumps.insert(0, 1);
            next.ahead.clear();
        }
        if plan.chain == ChainPlan::Remove {
            if !next.jumps.is_empty() || !next.references.is_empty() {
                return Err("chain is in use");
            }
            next.present = false;
            next.rules.clear();
            next.elements = next.elements.map(|_| Elements::default());
        }
        if !plan.elements.is_empty() {
            let held = next.elements.as_mut().filter(|_| next.present).ok_or("no such set")?;
            plan.elements.carry_out(held);
        }
        Ok(next)
    }
}
