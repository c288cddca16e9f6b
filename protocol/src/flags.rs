//! Actions, protocol steps and callbacks as sets.

use bitflags::bitflags;

use crate::command::CommandCode;

bitflags! {
    /// What a filter may do to a message, negotiated once per session.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Actions: u32 {
        /// Add or insert headers (`SMFIF_ADDHDRS`).
        const ADD_HEADERS = 0x001;
        /// Replace the body (`SMFIF_CHGBODY`).
        const CHANGE_BODY = 0x002;
        /// Add recipients (`SMFIF_ADDRCPT`).
        const ADD_RECIPIENTS = 0x004;
        /// Delete recipients (`SMFIF_DELRCPT`).
        const DELETE_RECIPIENTS = 0x008;
        /// Change or delete headers (`SMFIF_CHGHDRS`).
        const CHANGE_HEADERS = 0x010;
        /// Quarantine the message (`SMFIF_QUARANTINE`).
        const QUARANTINE = 0x020;
        /// Change the envelope sender (`SMFIF_CHGFROM`).
        const CHANGE_SENDER = 0x040;
        /// Add recipients with ESMTP arguments (`SMFIF_ADDRCPT_PAR`).
        const ADD_RECIPIENTS_WITH_ARGUMENTS = 0x080;
        /// Request macros (`SMFIF_SETSYMLIST`).
        const REQUEST_MACROS = 0x100;
        const _ = !0;
    }
}

impl Actions {
    /// What an MTA means that offers no actions at all: those of protocol version 1 (`SMFI_V1_ACTS`).
    pub const VERSION_1: Self = Self::from_bits_retain(0x0F);
    /// Everything protocol version 6 knows (`SMFI_CURR_ACTS`).
    pub const VERSION_6: Self = Self::from_bits_retain(0x1FF);

    /// What C programs call a single action; `None` for others.
    pub fn c_name(self) -> Option<&'static str> {
        Some(match self {
            Actions::ADD_HEADERS => "SMFIF_ADDHDRS",
            Actions::CHANGE_BODY => "SMFIF_CHGBODY",
            Actions::ADD_RECIPIENTS => "SMFIF_ADDRCPT",
            Actions::DELETE_RECIPIENTS => "SMFIF_DELRCPT",
            Actions::CHANGE_HEADERS => "SMFIF_CHGHDRS",
            Actions::QUARANTINE => "SMFIF_QUARANTINE",
            Actions::CHANGE_SENDER => "SMFIF_CHGFROM",
            Actions::ADD_RECIPIENTS_WITH_ARGUMENTS => "SMFIF_ADDRCPT_PAR",
            Actions::REQUEST_MACROS => "SMFIF_SETSYMLIST",
            _ => return None,
        })
    }
}

bitflags! {
    /// Parts of the protocol that a session leaves out, adds, or does not answer; negotiated once per session.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Steps: u32 {
        /// The MTA does not send CONNECT (`SMFIP_NOCONNECT`).
        const NO_CONNECT = 0x0000_0001;
        /// The MTA does not send HELO (`SMFIP_NOHELO`).
        const NO_HELO = 0x0000_0002;
        /// The MTA does not send MAIL (`SMFIP_NOMAIL`).
        const NO_MAIL = 0x0000_0004;
        /// The MTA does not send RCPT (`SMFIP_NORCPT`).
        const NO_RCPT = 0x0000_0008;
        /// The MTA does not send the body (`SMFIP_NOBODY`).
        const NO_BODY = 0x0000_0010;
        /// The MTA does not send headers (`SMFIP_NOHDRS`).
        const NO_HEADERS = 0x0000_0020;
        /// The MTA does not send the end of headers (`SMFIP_NOEOH`).
        const NO_EOH = 0x0000_0040;
        /// The filter does not answer headers (`SMFIP_NR_HDR`).
        const NR_HEADER = 0x0000_0080;
        /// The MTA does not send unknown SMTP commands (`SMFIP_NOUNKNOWN`).
        const NO_UNKNOWN = 0x0000_0100;
        /// The MTA does not send DATA (`SMFIP_NODATA`).
        const NO_DATA = 0x0000_0200;
        /// The MTA understands the SKIP reply (`SMFIP_SKIP`).
        const SKIP = 0x0000_0400;
        /// The MTA also sends recipients it has rejected itself (`SMFIP_RCPT_REJ`).
        const REJECTED_RCPT = 0x0000_0800;
        /// The filter does not answer CONNECT (`SMFIP_NR_CONN`).
        const NR_CONNECT = 0x0000_1000;
        /// The filter does not answer HELO (`SMFIP_NR_HELO`).
        const NR_HELO = 0x0000_2000;
        /// The filter does not answer MAIL (`SMFIP_NR_MAIL`).
        const NR_MAIL = 0x0000_4000;
        /// The filter does not answer RCPT (`SMFIP_NR_RCPT`).
        const NR_RCPT = 0x0000_8000;
        /// The filter does not answer DATA (`SMFIP_NR_DATA`).
        const NR_DATA = 0x0001_0000;
        /// The filter does not answer unknown commands (`SMFIP_NR_UNKN`).
        const NR_UNKNOWN = 0x0002_0000;
        /// The filter does not answer the end of headers (`SMFIP_NR_EOH`).
        const NR_EOH = 0x0004_0000;
        /// The filter does not answer body chunks (`SMFIP_NR_BODY`).
        const NR_BODY = 0x0008_0000;
        /// Header values keep the blank after the colon (`SMFIP_HDR_LEADSPC`).
        const LEADING_SPACE = 0x0010_0000;
        /// Payloads of up to 256 KiB - 1 (`SMFIP_MDS_256K`).
        const SIZE_256K = 0x1000_0000;
        /// Payloads of up to 1 MiB - 1 (`SMFIP_MDS_1M`).
        const SIZE_1M = 0x2000_0000;
        const _ = !0;
    }
}

impl Steps {
    /// What an MTA means that offers no steps at all: those of protocol version 1 (`SMFI_V1_PROT`).
    pub const VERSION_1: Self = Self::from_bits_retain(0x3F);
    /// Everything protocol version 6 knows (`SMFI_CURR_PROT`).
    pub const VERSION_6: Self = Self::from_bits_retain(0x001F_FFFF);
    /// Bits that library and MTA settle between themselves; filters do not see the MTA's (`SMFI_INTERNAL`).
    pub const INTERNAL: Self = Self::from_bits_retain(0x7000_0000);
    /// Every "the filter does not answer" bit.
    pub const NO_REPLY: Self = Self::from_bits_retain(0x000F_F080);
}

bitflags! {
    /// The callbacks that a filter has registered and that its API version lets the library use.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Callbacks: u16 {
        /// `xxfi_connect`
        const CONNECT = 1 << 0;
        /// `xxfi_helo`
        const HELO = 1 << 1;
        /// `xxfi_envfrom`
        const ENVFROM = 1 << 2;
        /// `xxfi_envrcpt`
        const ENVRCPT = 1 << 3;
        /// `xxfi_header`
        const HEADER = 1 << 4;
        /// `xxfi_eoh`
        const EOH = 1 << 5;
        /// `xxfi_body`
        const BODY = 1 << 6;
        /// `xxfi_eom`
        const EOM = 1 << 7;
        /// `xxfi_abort`
        const ABORT = 1 << 8;
        /// `xxfi_close`
        const CLOSE = 1 << 9;
        /// `xxfi_unknown`
        const UNKNOWN = 1 << 10;
        /// `xxfi_data`
        const DATA = 1 << 11;
        /// `xxfi_negotiate`
        const NEGOTIATE = 1 << 12;
    }
}

impl Callbacks {
    /// How many there are.
    pub const COUNT: usize = Callbacks::all().bits().count_ones() as usize;

    /// The place of a single callback among all, below [`Self::COUNT`].
    pub fn index(self) -> usize {
        debug_assert!(self.bits().is_power_of_two());
        self.bits().trailing_zeros() as usize
    }

    /// What C programs call a single callback; empty for none or several.
    pub fn c_name(self) -> &'static str {
        match self {
            Callbacks::CONNECT => "xxfi_connect",
            Callbacks::HELO => "xxfi_helo",
            Callbacks::ENVFROM => "xxfi_envfrom",
            Callbacks::ENVRCPT => "xxfi_envrcpt",
            Callbacks::HEADER => "xxfi_header",
            Callbacks::EOH => "xxfi_eoh",
            Callbacks::BODY => "xxfi_body",
            Callbacks::EOM => "xxfi_eom",
            Callbacks::ABORT => "xxfi_abort",
            Callbacks::CLOSE => "xxfi_close",
            Callbacks::UNKNOWN => "xxfi_unknown",
            Callbacks::DATA => "xxfi_data",
            Callbacks::NEGOTIATE => "xxfi_negotiate",
            _ => "",
        }
    }

    /// The steps an MTA can leave out because no callback asks for them.
    pub fn unneeded_steps(self) -> Steps {
        CommandCode::all()
            .filter(|command| !self.contains(command.callback()))
            .map(CommandCode::left_out_step)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_callback_has_its_name() {
        let names: Vec<&str> = Callbacks::all().iter().map(Callbacks::c_name).collect();
        let known = "connect helo envfrom envrcpt header eoh body eom abort close unknown data negotiate";
        assert_eq!(names, known.split(' ').map(|name| format!("xxfi_{name}")).collect::<Vec<_>>());
    }
}
