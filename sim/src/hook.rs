//! Hooks before a change of the role: they take their time, and refuse promotions, at random; with nothing going
//! wrong any more they agree.

use crate::machine::HookSaid;
use crate::world::World;
use fsm::node::consent::{Asked, Coming, coming};
use shared::ids::NodeId;

/// For how long a refusal counts; shorter than the real one, as all timers are.
const HOLD_MS: u64 = 500;

impl World {
    /// Asks the hook of the change that the assignment asks for, or looks what it says.
    pub(crate) fn ask_hook(&mut self, id: NodeId, now: u64) {
        let Some(machine) = self.machines.get(id) else { return };
        let about = machine.persisted.as_ref().and_then(|persisted| {
            Some((coming(&machine.view, persisted)?, persisted.assignment.epoch))
        });
        let before = machine.keeper.as_ref().and_then(|keeper| keeper.hook);
        let known = before.filter(|hook| Some(hook.about) == about);
        let said = match known.map(|hook| (hook.said, hook.until)) {
            Some((Asked::Clear, _)) => Asked::Clear,
            Some((Asked::Refused, until)) if now < until => return,
            Some((Asked::Running | Asked::Refused, _)) | None => self.drawn(about.map(|it| it.0)),
        };
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.view.hook = if about.is_some() { said } else { Asked::Clear };
        let Some(keeper) = machine.keeper.as_mut() else { return };
        match about {
            Some(about) => {
                keeper.hook = Some(HookSaid { about, said, until: now + HOLD_MS });
            }
            // A refusal counts in the next election too.
            None if before.is_some_and(|hook| hook.said != Asked::Refused) => keeper.hook = None,
            None => {}
        }
    }

    fn drawn(&mut self, coming: Option<Coming>) -> Asked {
        if coming.is_none() || !(self.hooks && self.faulty) {
            return Asked::Clear;
        }
        match (self.random.below(4), coming) {
            (0, _) => Asked::Running,
            (1, Some(Coming::Promotion)) => Asked::Refused,
            _ => Asked::Clear,
        }
    }
}
