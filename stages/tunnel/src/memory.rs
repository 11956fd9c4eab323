//! The ports of this run, remembered in the ledger: `gc` after a SIGKILL removes the outputs, and a cleaner of /tmp may, while
//! tasks still look for the master at its port.

use std::collections::BTreeMap;

use protocol::ledger::{Parked, Ticket};
use protocol::{Context, Leftover, Removal, StageError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Tunnel;
use crate::outputs::Outputs;

/// The ledger's kind of entry for them.
pub(crate) const LEDGER_ENTRY: &str = "ports";

/// How long they are remembered after a run that was killed, in seconds.
const MEMORY: u64 = 30 * 24 * 3600;

/// Ports of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) server: String,
    /// The tunnel's own port.
    pub(crate) port: u16,
    /// Those of `forwards`, by name.
    pub(crate) forwards: BTreeMap<String, u16>,
}

impl From<&Outputs> for Ports {
    fn from(outputs: &Outputs) -> Ports {
        let forwards = outputs.forwards.iter();
        Ports {
            server: outputs.ssh_host.clone(),
            port: outputs.port,
            forwards: forwards.map(|(name, f)| (name.clone(), f.port)).collect(),
        }
    }
}

/// The memory of an instance.
#[derive(Debug)]
pub(crate) struct Memory {
    ticket: Option<Ticket>,
    ports: Option<Ports>,
}

impl Memory {
    pub(crate) fn open(cx: &Context<Tunnel>) -> Memory {
        let entries = cx.ledger.entries();
        let entry = entries.iter().rev().find(|it| it.what == LEDGER_ENTRY);
        Memory {
            ticket: entry.map(|entry| cx.ledger.adopt(entry)),
            ports: entry.and_then(|entry| serde_json::from_value(entry.data.clone()).ok()),
        }
    }

    /// The ports of the last run, from its outputs if they are there.
    pub(crate) fn last(&self, cx: &Context<Tunnel>) -> Option<Ports> {
        let reported = cx.previous().as_ref().map(Ports::from);
        reported.or_else(|| self.ports.clone())
    }

    /// Remembers the ports of this run.
    pub(crate) fn note(
        &mut self,
        cx: &Context<Tunnel>,
        outputs: &Outputs,
    ) -> Result<(), StageError> {
        let ports = Ports::from(outputs);
        let data = json!(ports);
        match &self.ticket {
            Some(ticket) => ticket.reopen(data)?,
            None => self.ticket = Some(cx.ledger.intend(LEDGER_ENTRY, data)?),
        }
        self.ports = Some(ports);
        Ok(())
    }

    /// The outputs that an orderly stop leaves are enough.
    pub(crate) fn release(self) -> Result<(), StageError> {
        self.ticket.map_or(Ok(()), Ticket::settle)
    }
}

/// `gc` keeps the memory; `cleanup` by hand does not.
pub(crate) fn leftover<'a>(cx: &Context<Tunnel>) -> Option<Leftover<'a>> {
    let parked = async { Ok(Removal::Parked(Parked::new("", MEMORY))) };
    cx.keeps().then(|| Leftover::new("", parked))
}
