/*
 * libmilter/mfdef.h: the numbers and letters of the milter protocol.
 *
 * Generated from src/capi/mfdef.rs. Licence: MIT OR Apache-2.0.
 */
#ifndef _LIBMILTER_MFDEF_H
#define _LIBMILTER_MFDEF_H 1


#ifndef SMFI_PROT_VERSION
/**
 * The latest version of the protocol.
 */
#define SMFI_PROT_VERSION 6
#endif

#if defined(_FFR_MDS_NEGOTIATE) && _FFR_MDS_NEGOTIATE
/**
 * Limits of payloads, in octets: without negotiation, with SMFIP_MDS_256K and with SMFIP_MDS_1M.
 */
#define MILTER_MDS_64K 65535
#define MILTER_MDS_256K 262143
#define MILTER_MDS_1M 1048575
#endif


/**
 * Octets of the length word in front of every packet.
 */
#define MILTER_LEN_BYTES 4

/**
 * Octets of a negotiation packet: version, actions and protocol steps.
 */
#define MILTER_OPTLEN (MILTER_LEN_BYTES * 3)

/**
 * Most octets of body that one packet carries.
 */
#define MILTER_CHUNK_SIZE 65535

/**
 * Largest payload of a packet unless smfi_setmaxdatasize() was called.
 */
#define MILTER_MAX_DATA_SIZE 65535

/**
 * Address family of SMFIC_CONNECT: not known, no address follows.
 */
#define SMFIA_UNKNOWN 'U'

/**
 * Address family of SMFIC_CONNECT: a path in the file system.
 */
#define SMFIA_UNIX 'L'

/**
 * Address family of SMFIC_CONNECT: IPv4.
 */
#define SMFIA_INET '4'

/**
 * Address family of SMFIC_CONNECT: IPv6.
 */
#define SMFIA_INET6 '6'

/**
 * Command: forget the current message.
 */
#define SMFIC_ABORT 'A'

/**
 * Command: a piece of the body.
 */
#define SMFIC_BODY 'B'

/**
 * Command: a client has connected to the MTA.
 */
#define SMFIC_CONNECT 'C'

/**
 * Command: macros for the command that follows.
 */
#define SMFIC_MACRO 'D'

/**
 * Command: end of the message, possibly with the last piece of the body.
 */
#define SMFIC_BODYEOB 'E'

/**
 * Command: HELO or EHLO.
 */
#define SMFIC_HELO 'H'

/**
 * Command: the session is over, another one follows on this connection.
 */
#define SMFIC_QUIT_NC 'K'

/**
 * Command: one header field.
 */
#define SMFIC_HEADER 'L'

/**
 * Command: MAIL FROM.
 */
#define SMFIC_MAIL 'M'

/**
 * Command: end of the header.
 */
#define SMFIC_EOH 'N'

/**
 * Command, and its own reply: option negotiation.
 */
#define SMFIC_OPTNEG 'O'

/**
 * Command: the session is over.
 */
#define SMFIC_QUIT 'Q'

/**
 * Command: RCPT TO.
 */
#define SMFIC_RCPT 'R'

/**
 * Command: DATA.
 */
#define SMFIC_DATA 'T'

/**
 * Command: an SMTP command that the MTA does not know.
 */
#define SMFIC_UNKNOWN 'U'

/**
 * Modification: add a recipient.
 */
#define SMFIR_ADDRCPT '+'

/**
 * Modification: remove a recipient.
 */
#define SMFIR_DELRCPT '-'

/**
 * Modification: add a recipient with ESMTP arguments.
 */
#define SMFIR_ADDRCPT_PAR '2'

/**
 * Reply: answer 421 and close the SMTP connection; never sent by this library.
 */
#define SMFIR_SHUTDOWN '4'

/**
 * Reply: accept the message or connection without further questions.
 */
#define SMFIR_ACCEPT 'a'

/**
 * Modification: a piece of the new body.
 */
#define SMFIR_REPLBODY 'b'

/**
 * Reply: go on.
 */
#define SMFIR_CONTINUE 'c'

/**
 * Reply: accept the message and throw it away.
 */
#define SMFIR_DISCARD 'd'

/**
 * Modification: replace the envelope sender.
 */
#define SMFIR_CHGFROM 'e'

/**
 * Reply: make the SMTP connection fail; never sent by this library.
 */
#define SMFIR_CONN_FAIL 'f'

/**
 * Modification: append a header field.
 */
#define SMFIR_ADDHEADER 'h'

/**
 * Modification: insert a header field at a position.
 */
#define SMFIR_INSHEADER 'i'

/**
 * Part of the negotiation: the macros that a stage shall be given.
 */
#define SMFIR_SETSYMLIST 'l'

/**
 * Modification: change or remove a header field.
 */
#define SMFIR_CHGHEADER 'm'

/**
 * Reply: the filter is still at work.
 */
#define SMFIR_PROGRESS 'p'

/**
 * Modification: quarantine the message.
 */
#define SMFIR_QUARANTINE 'q'

/**
 * Reply: reject with a permanent error.
 */
#define SMFIR_REJECT 'r'

/**
 * Reply: no more of this kind of event in this message.
 */
#define SMFIR_SKIP 's'

/**
 * Reply: reject with a temporary error.
 */
#define SMFIR_TEMPFAIL 't'

/**
 * Reply: reject with the SMTP reply that follows.
 */
#define SMFIR_REPLYCODE 'y'

/**
 * Actions of protocol version 1.
 */
#define SMFI_V1_ACTS 0x0000000FL

/**
 * Actions of protocol version 2.
 */
#define SMFI_V2_ACTS 0x0000003FL

/**
 * Actions of the current protocol version.
 */
#define SMFI_CURR_ACTS 0x000001FFL

/**
 * Protocol step: do not send connection information.
 */
#define SMFIP_NOCONNECT 0x00000001L

/**
 * Protocol step: do not send HELO.
 */
#define SMFIP_NOHELO 0x00000002L

/**
 * Protocol step: do not send MAIL.
 */
#define SMFIP_NOMAIL 0x00000004L

/**
 * Protocol step: do not send RCPT.
 */
#define SMFIP_NORCPT 0x00000008L

/**
 * Protocol step: do not send the body.
 */
#define SMFIP_NOBODY 0x00000010L

/**
 * Protocol step: do not send header fields.
 */
#define SMFIP_NOHDRS 0x00000020L

/**
 * Protocol step: do not send the end of the header.
 */
#define SMFIP_NOEOH 0x00000040L

/**
 * Protocol step: the filter does not answer header fields.
 */
#define SMFIP_NR_HDR 0x00000080L

/**
 * The former name of SMFIP_NR_HDR.
 */
#define SMFIP_NOHREPL SMFIP_NR_HDR

/**
 * Protocol step: do not send unknown SMTP commands.
 */
#define SMFIP_NOUNKNOWN 0x00000100L

/**
 * Protocol step: do not send DATA.
 */
#define SMFIP_NODATA 0x00000200L

/**
 * Protocol step: the MTA understands SMFIS_SKIP.
 */
#define SMFIP_SKIP 0x00000400L

/**
 * Protocol step: send recipients that the MTA has already rejected, too.
 */
#define SMFIP_RCPT_REJ 0x00000800L

/**
 * Protocol step: the filter does not answer connection information.
 */
#define SMFIP_NR_CONN 0x00001000L

/**
 * Protocol step: the filter does not answer HELO.
 */
#define SMFIP_NR_HELO 0x00002000L

/**
 * Protocol step: the filter does not answer MAIL.
 */
#define SMFIP_NR_MAIL 0x00004000L

/**
 * Protocol step: the filter does not answer RCPT.
 */
#define SMFIP_NR_RCPT 0x00008000L

/**
 * Protocol step: the filter does not answer DATA.
 */
#define SMFIP_NR_DATA 0x00010000L

/**
 * Protocol step: the filter does not answer unknown SMTP commands.
 */
#define SMFIP_NR_UNKN 0x00020000L

/**
 * Protocol step: the filter does not answer the end of the header.
 */
#define SMFIP_NR_EOH 0x00040000L

/**
 * Protocol step: the filter does not answer pieces of the body.
 */
#define SMFIP_NR_BODY 0x00080000L

/**
 * Protocol step: keep the white space in front of header values.
 */
#define SMFIP_HDR_LEADSPC 0x00100000L

/**
 * Protocol step: payloads of up to 256 KiB less one octet.
 */
#define SMFIP_MDS_256K 0x10000000L

/**
 * Protocol step: payloads of up to 1 MiB less one octet.
 */
#define SMFIP_MDS_1M 0x20000000L

/**
 * Steps of protocol version 1.
 */
#define SMFI_V1_PROT 0x0000003FL

/**
 * Steps of protocol version 2.
 */
#define SMFI_V2_PROT 0x0000007FL

/**
 * Steps of the current protocol version.
 */
#define SMFI_CURR_PROT 0x001FFFFFL

/**
 * Steps that library and MTA settle between themselves, unseen by the filter.
 */
#define SMFI_INTERNAL 0x70000000L

#endif /* _LIBMILTER_MFDEF_H */
