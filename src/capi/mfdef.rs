//! The constants of `libmilter/mfdef.h`: command and reply codes, protocol steps and packet sizes.
//!
//! The engine has its own typed forms of these numbers; the constants here exist for C programs, and reach
//! them through the generated header. The codes are `char` so that the header spells them as letters.

use std::ffi::{c_int, c_long};

/// Octets of the length word in front of every packet.
pub const MILTER_LEN_BYTES: c_int = 4;
/// Octets of a negotiation packet: version, actions and protocol steps.
pub const MILTER_OPTLEN: c_int = MILTER_LEN_BYTES * 3;
/// Most octets of body that one packet carries.
pub const MILTER_CHUNK_SIZE: c_int = 65535;
/// Largest payload of a packet unless smfi_setmaxdatasize() was called.
pub const MILTER_MAX_DATA_SIZE: c_int = 65535;

/// Address family of SMFIC_CONNECT: not known, no address follows.
pub const SMFIA_UNKNOWN: char = 'U';
/// Address family of SMFIC_CONNECT: a path in the file system.
pub const SMFIA_UNIX: char = 'L';
/// Address family of SMFIC_CONNECT: IPv4.
pub const SMFIA_INET: char = '4';
/// Address family of SMFIC_CONNECT: IPv6.
pub const SMFIA_INET6: char = '6';

/// Command: forget the current message.
pub const SMFIC_ABORT: char = 'A';
/// Command: a piece of the body.
pub const SMFIC_BODY: char = 'B';
/// Command: a client has connected to the MTA.
pub const SMFIC_CONNECT: char = 'C';
/// Command: macros for the command that follows.
pub const SMFIC_MACRO: char = 'D';
/// Command: end of the message, possibly with the last piece of the body.
pub const SMFIC_BODYEOB: char = 'E';
/// Command: HELO or EHLO.
pub const SMFIC_HELO: char = 'H';
/// Command: the session is over, another one follows on this connection.
pub const SMFIC_QUIT_NC: char = 'K';
/// Command: one header field.
pub const SMFIC_HEADER: char = 'L';
/// Command: MAIL FROM.
pub const SMFIC_MAIL: char = 'M';
/// Command: end of the header.
pub const SMFIC_EOH: char = 'N';
/// Command, and its own reply: option negotiation.
pub const SMFIC_OPTNEG: char = 'O';
/// Command: the session is over.
pub const SMFIC_QUIT: char = 'Q';
/// Command: RCPT TO.
pub const SMFIC_RCPT: char = 'R';
/// Command: DATA.
pub const SMFIC_DATA: char = 'T';
/// Command: an SMTP command that the MTA does not know.
pub const SMFIC_UNKNOWN: char = 'U';

/// Modification: add a recipient.
pub const SMFIR_ADDRCPT: char = '+';
/// Modification: remove a recipient.
pub const SMFIR_DELRCPT: char = '-';
/// Modification: add a recipient with ESMTP arguments.
pub const SMFIR_ADDRCPT_PAR: char = '2';
/// Reply: answer 421 and close the SMTP connection; never sent by this library.
pub const SMFIR_SHUTDOWN: char = '4';
/// Reply: accept the message or connection without further questions.
pub const SMFIR_ACCEPT: char = 'a';
/// Modification: a piece of the new body.
pub const SMFIR_REPLBODY: char = 'b';
/// Reply: go on.
pub const SMFIR_CONTINUE: char = 'c';
/// Reply: accept the message and throw it away.
pub const SMFIR_DISCARD: char = 'd';
/// Modification: replace the envelope sender.
pub const SMFIR_CHGFROM: char = 'e';
/// Reply: make the SMTP connection fail; never sent by this library.
pub const SMFIR_CONN_FAIL: char = 'f';
/// Modification: append a header field.
pub const SMFIR_ADDHEADER: char = 'h';
/// Modification: insert a header field at a position.
pub const SMFIR_INSHEADER: char = 'i';
/// Part of the negotiation: the macros that a stage shall be given.
pub const SMFIR_SETSYMLIST: char = 'l';
/// Modification: change or remove a header field.
pub const SMFIR_CHGHEADER: char = 'm';
/// Reply: the filter is still at work.
pub const SMFIR_PROGRESS: char = 'p';
/// Modification: quarantine the message.
pub const SMFIR_QUARANTINE: char = 'q';
/// Reply: reject with a permanent error.
pub const SMFIR_REJECT: char = 'r';
/// Reply: no more of this kind of event in this message.
pub const SMFIR_SKIP: char = 's';
/// Reply: reject with a temporary error.
pub const SMFIR_TEMPFAIL: char = 't';
/// Reply: reject with the SMTP reply that follows.
pub const SMFIR_REPLYCODE: char = 'y';

/// Actions of protocol version 1.
pub const SMFI_V1_ACTS: c_long = 0x0000_000F;
/// Actions of protocol version 2.
pub const SMFI_V2_ACTS: c_long = 0x0000_003F;
/// Actions of the current protocol version.
pub const SMFI_CURR_ACTS: c_long = 0x0000_01FF;

/// Protocol step: do not send connection information.
pub const SMFIP_NOCONNECT: c_long = 0x0000_0001;
/// Protocol step: do not send HELO.
pub const SMFIP_NOHELO: c_long = 0x0000_0002;
/// Protocol step: do not send MAIL.
pub const SMFIP_NOMAIL: c_long = 0x0000_0004;
/// Protocol step: do not send RCPT.
pub const SMFIP_NORCPT: c_long = 0x0000_0008;
/// Protocol step: do not send the body.
pub const SMFIP_NOBODY: c_long = 0x0000_0010;
/// Protocol step: do not send header fields.
pub const SMFIP_NOHDRS: c_long = 0x0000_0020;
/// Protocol step: do not send the end of the header.
pub const SMFIP_NOEOH: c_long = 0x0000_0040;
/// Protocol step: the filter does not answer header fields.
pub const SMFIP_NR_HDR: c_long = 0x0000_0080;
/// The former name of SMFIP_NR_HDR.
pub const SMFIP_NOHREPL: c_long = SMFIP_NR_HDR;
/// Protocol step: do not send unknown SMTP commands.
pub const SMFIP_NOUNKNOWN: c_long = 0x0000_0100;
/// Protocol step: do not send DATA.
pub const SMFIP_NODATA: c_long = 0x0000_0200;
/// Protocol step: the MTA understands SMFIS_SKIP.
pub const SMFIP_SKIP: c_long = 0x0000_0400;
/// Protocol step: send recipients that the MTA has already rejected, too.
pub const SMFIP_RCPT_REJ: c_long = 0x0000_0800;
/// Protocol step: the filter does not answer connection information.
pub const SMFIP_NR_CONN: c_long = 0x0000_1000;
/// Protocol step: the filter does not answer HELO.
pub const SMFIP_NR_HELO: c_long = 0x0000_2000;
/// Protocol step: the filter does not answer MAIL.
pub const SMFIP_NR_MAIL: c_long = 0x0000_4000;
/// Protocol step: the filter does not answer RCPT.
pub const SMFIP_NR_RCPT: c_long = 0x0000_8000;
/// Protocol step: the filter does not answer DATA.
pub const SMFIP_NR_DATA: c_long = 0x0001_0000;
/// Protocol step: the filter does not answer unknown SMTP commands.
pub const SMFIP_NR_UNKN: c_long = 0x0002_0000;
/// Protocol step: the filter does not answer the end of the header.
pub const SMFIP_NR_EOH: c_long = 0x0004_0000;
/// Protocol step: the filter does not answer pieces of the body.
pub const SMFIP_NR_BODY: c_long = 0x0008_0000;
/// Protocol step: keep the white space in front of header values.
pub const SMFIP_HDR_LEADSPC: c_long = 0x0010_0000;
/// Protocol step: payloads of up to 256 KiB less one octet.
pub const SMFIP_MDS_256K: c_long = 0x1000_0000;
/// Protocol step: payloads of up to 1 MiB less one octet.
pub const SMFIP_MDS_1M: c_long = 0x2000_0000;

/// Steps of protocol version 1.
pub const SMFI_V1_PROT: c_long = 0x0000_003F;
/// Steps of protocol version 2.
pub const SMFI_V2_PROT: c_long = 0x0000_007F;
/// Steps of the current protocol version.
pub const SMFI_CURR_PROT: c_long = 0x001F_FFFF;
/// Steps that library and MTA settle between themselves, unseen by the filter.
pub const SMFI_INTERNAL: c_long = 0x7000_0000;
