/*
 * libmilter/mfapi.h: the interface between a mail filter and libmilter.
 *
 * A filter fills in a struct smfiDesc with its callbacks, hands it to smfi_register(), names its socket with
 * smfi_setconn() and calls smfi_main(). The library then talks to MTAs and runs the callbacks. Link with -lmilter.
 *
 * Generated from src/capi. Licence: MIT OR Apache-2.0.
 */
#ifndef _LIBMILTER_MFAPI_H
#define _LIBMILTER_MFAPI_H 1

#include <sys/types.h>
#include <sys/socket.h>

#include "libmilter/mfdef.h"

/*
 * bool: int in C before C23, as in sendmail's header up to release 8.18.1, so that a program may define a bool of its own
 * after this file. A program that has one already keeps it. SM_CONF_STDBOOL_H, if defined as 1, asks for <stdbool.h>.
 */
#if defined(SM_CONF_STDBOOL_H) && SM_CONF_STDBOOL_H
#include <stdbool.h>
#elif !defined(__cplusplus) && !defined(bool) && !defined(__bool_true_false_are_defined)
#if defined(__STDC_VERSION__) && __STDC_VERSION__ > 201710L
/* A keyword, and in drafts of C23 perhaps not yet. */
#include <stdbool.h>
#else
typedef int bool;
#define false 0
#define true 1
#define __bool_true_false_are_defined 1
#endif
#endif

/*
 * For smfi_opensocket(): before C99 the bool of <stdbool.h> is an extension.
 */
#if !defined(__GNUC__) && !defined(__extension__)
#define __extension__
#endif

#ifdef __cplusplus
extern "C" {
#endif

#ifndef LIBMILTER_API
#define LIBMILTER_API extern
#endif

/*
 * Arguments of prototypes, for compilers without them.
 */
#ifndef __P
#define __P(args) args
#endif
#ifndef SM__P
#define SM__P(args) __P(args)
#endif

/**
 * The type behind the address of xxfi_connect; a program may define its own before it includes this file.
 */
#ifndef _SOCK_ADDR
#define _SOCK_ADDR struct sockaddr
#endif

/**
 * The version of this interface, for xxfi_version; a program may define another one before it includes this file.
 */
#ifndef SMFI_VERSION
#if defined(_FFR_MDS_NEGOTIATE) && _FFR_MDS_NEGOTIATE
#define SMFI_VERSION 0x01000002
#define SMFI_VERSION_MDS 0x01000002
#else
#define SMFI_VERSION 0x01000001
#endif
#endif

/**
 * The parts of a version: major, minor, patch level.
 */
#define SM_LM_VRS_MAJOR(v) (((v) & 0x7f000000) >> 24)
#define SM_LM_VRS_MINOR(v) (((v) & 0x007fff00) >> 8)
#define SM_LM_VRS_PLVL(v) ((v) & 0x0000007f)

#if defined(_FFR_WORKERS_POOL) && _FFR_WORKERS_POOL
/**
 * Internal to libraries with a pool of workers; defined for programs that mention it.
 */
#define MI_CONTINUE 1
#endif


/**
 * Result of a library call: done.
 */
#define MI_SUCCESS 0

/**
 * Result of a library call: refused or failed.
 */
#define MI_FAILURE (-1)

/**
 * Verdict: go on with the next event.
 */
#define SMFIS_CONTINUE 0

/**
 * Verdict: refuse for good; of a recipient only that recipient, of a connection all that follows on it.
 */
#define SMFIS_REJECT 1

/**
 * Verdict: accept the message and silently throw it away.
 */
#define SMFIS_DISCARD 2

/**
 * Verdict: accept the message, or the whole connection, without further events.
 */
#define SMFIS_ACCEPT 3

/**
 * Verdict: refuse for now; the sender may try again.
 */
#define SMFIS_TEMPFAIL 4

/**
 * Verdict: send no answer; only where the matching SMFIP_NR_ step was negotiated.
 */
#define SMFIS_NOREPLY 7

/**
 * Verdict: no more events of this kind in this message; only where SMFIP_SKIP was negotiated.
 */
#define SMFIS_SKIP 8

/**
 * Verdict of xxfi_negotiate only: use every action that the MTA offers and the default steps.
 */
#define SMFIS_ALL_OPTS 10

/**
 * Action: none.
 */
#define SMFIF_NONE 0x00000000L

/**
 * Action: add and insert header fields.
 */
#define SMFIF_ADDHDRS 0x00000001L

/**
 * Action: replace the body.
 */
#define SMFIF_CHGBODY 0x00000002L

/**
 * The former name of SMFIF_CHGBODY.
 */
#define SMFIF_MODBODY SMFIF_CHGBODY

/**
 * Action: add recipients.
 */
#define SMFIF_ADDRCPT 0x00000004L

/**
 * Action: remove recipients.
 */
#define SMFIF_DELRCPT 0x00000008L

/**
 * Action: change and remove header fields.
 */
#define SMFIF_CHGHDRS 0x00000010L

/**
 * Action: quarantine the message.
 */
#define SMFIF_QUARANTINE 0x00000020L

/**
 * Action: replace the envelope sender.
 */
#define SMFIF_CHGFROM 0x00000040L

/**
 * Action: add recipients with ESMTP arguments.
 */
#define SMFIF_ADDRCPT_PAR 0x00000080L

/**
 * Action: tell the MTA which macros to send.
 */
#define SMFIF_SETSYMLIST 0x00000100L

/**
 * Stage of smfi_setsymlist(): none.
 */
#define SMFIM_NOMACROS (-1)

/**
 * Stage of smfi_setsymlist(): the lowest number.
 */
#define SMFIM_FIRST 0

/**
 * Stage of smfi_setsymlist(): connection.
 */
#define SMFIM_CONNECT 0

/**
 * Stage of smfi_setsymlist(): HELO.
 */
#define SMFIM_HELO 1

/**
 * Stage of smfi_setsymlist(): MAIL.
 */
#define SMFIM_ENVFROM 2

/**
 * Stage of smfi_setsymlist(): RCPT.
 */
#define SMFIM_ENVRCPT 3

/**
 * Stage of smfi_setsymlist(): DATA.
 */
#define SMFIM_DATA 4

/**
 * Stage of smfi_setsymlist(): end of the message.
 */
#define SMFIM_EOM 5

/**
 * Stage of smfi_setsymlist(): end of the header.
 */
#define SMFIM_EOH 6

/**
 * Stage of smfi_setsymlist(): the highest number.
 */
#define SMFIM_LAST 6

/**
 * A session: one connection from the MTA.
 *
 * Every callback is given one, and the calls that concern a session take it back. The pointer stays the same
 * from the first callback of a session to the end of its xxfi_close, and no two live sessions share one.
 */
struct smfi_str;

/**
 * What a callback returns: one of SMFIS_CONTINUE, SMFIS_REJECT and so on.
 */
typedef int sfsistat;

/**
 * The usual name of a session.
 */
typedef struct smfi_str SMFICTX;

/**
 * What a filter tells smfi_register() about itself.
 *
 * Every callback may be NULL. Callbacks of one session never run at the same time, those of different sessions
 * do. The strings, arrays and addresses that a callback is given may be changed in place and are valid until it
 * returns.
 */
struct smfiDesc {
  /**
   * The filter's name, for the log; NULL stands for "Unknown".
   */
  char *xxfi_name;
  /**
   * SMFI_VERSION; or 2, 3 or 4 for programs written for those versions, whose structure ends earlier.
   */
  int xxfi_version;
  /**
   * The SMFIF_ actions that the filter wants to use.
   */
  unsigned long xxfi_flags;
  /**
   * A client has connected: its host name and its address, or NULL if that is not known.
   */
  sfsistat (*xxfi_connect)(SMFICTX*, char*, _SOCK_ADDR*);
  /**
   * HELO or EHLO: the name that the client gave.
   */
  sfsistat (*xxfi_helo)(SMFICTX*, char*);
  /**
   * MAIL: the sender and its ESMTP arguments, ended by NULL.
   */
  sfsistat (*xxfi_envfrom)(SMFICTX*, char**);
  /**
   * RCPT: a recipient and its ESMTP arguments, ended by NULL.
   */
  sfsistat (*xxfi_envrcpt)(SMFICTX*, char**);
  /**
   * One header field: its name and its value.
   */
  sfsistat (*xxfi_header)(SMFICTX*, char*, char*);
  /**
   * End of the header.
   */
  sfsistat (*xxfi_eoh)(SMFICTX*);
  /**
   * A piece of the body and its length in octets; not ended by a NUL.
   */
  sfsistat (*xxfi_body)(SMFICTX*, unsigned char*, size_t);
  /**
   * End of the message: the only callback in which the message may be modified.
   */
  sfsistat (*xxfi_eom)(SMFICTX*);
  /**
   * The message is given up; the session may go on. The result is ignored.
   */
  sfsistat (*xxfi_abort)(SMFICTX*);
  /**
   * The session ends, always the last callback: free its private data here. The result is ignored.
   */
  sfsistat (*xxfi_close)(SMFICTX*);
  /**
   * An SMTP command that the MTA does not know; from version 3 on.
   */
  sfsistat (*xxfi_unknown)(SMFICTX*, const char*);
  /**
   * DATA; from version 4 on.
   */
  sfsistat (*xxfi_data)(SMFICTX*);
  /**
   * Option negotiation: what the MTA offers (actions, steps, two times 0), and where to store what the filter
   * wants of it; from version 0x01000000 on.
   */
  sfsistat (*xxfi_negotiate)(SMFICTX*, unsigned long, unsigned long, unsigned long, unsigned long, unsigned long*, unsigned long*, unsigned long*, unsigned long*);
};

/**
 * Pointer to a session.
 */
typedef struct smfi_str *SMFICTX_PTR;

/**
 * Another name of struct smfiDesc.
 */
typedef struct smfiDesc smfiDesc_str;

/**
 * Pointer to a struct smfiDesc.
 */
typedef struct smfiDesc *smfiDesc_ptr;

/**
 * Opens the listening socket now instead of in smfi_main().
 *
 * Call it after smfi_setconn() and smfi_register() and before smfi_main(). It lets a program report a wrong
 * address early, set owner and mode of a socket file, or give up privileges before it serves.
 *
 * @param __remove_stale if true, a socket file that is in the way is removed first.
 * @return MI_SUCCESS, also if the socket is open already; MI_FAILURE if the filter is not registered, if there
 * is no address, or if the socket cannot be opened: the log says why.
 *
 */
__extension__ LIBMILTER_API int smfi_opensocket(bool __remove_stale);

/**
 * Tells the library the filter's name, version, actions and callbacks.
 *
 * Call it before smfi_main(). The structure is copied; a later call replaces it.
 *
 * @param __descriptor the filter; its xxfi_version should be SMFI_VERSION.
 * @return MI_SUCCESS, or MI_FAILURE if xxfi_version is none that this library knows; the filter then counts as
 * not registered.
 */
LIBMILTER_API int smfi_register(struct smfiDesc __descriptor);

/**
 * Serves MTAs until the filter is told to stop by smfi_stop(), SIGHUP, SIGTERM or SIGINT.
 *
 * Call it after smfi_register() and smfi_setconn(). Callbacks run in other threads, or in other processes if the
 * options say so, several at a time. The library starts no thread before this call, so a program may fork before
 * it.
 *
 * @return MI_SUCCESS after a stop; MI_FAILURE if the filter is not registered, if there is no address, if the
 * socket cannot be opened, if LIBMILTER_OPTIONS is not understood, if smfi_main() is running already, if processes
 * are asked for and the program has other threads, or if threads or descriptors are lacking: the log says why.
 */
LIBMILTER_API int smfi_main(void);

/**
 * Sets how many connections may wait to be accepted.
 *
 * Call it before the socket is opened.
 *
 * @param __backlog the number, at least 1.
 * @return MI_SUCCESS, or MI_FAILURE for a number below 1.
 */
LIBMILTER_API int smfi_setbacklog(int __backlog);

/**
 * Sets how much the library tells on standard output about its work.
 *
 * Call it before smfi_main().
 *
 * @param __level 0 for nothing; the higher, the more, up to 6.
 * @return MI_SUCCESS.
 */
LIBMILTER_API int smfi_setdbg(int __level);

/**
 * Sets how long the library waits for the MTA before it gives a session up.
 *
 * Call it before smfi_main(). The default is 7210 seconds; less than what the MTA may need between two commands
 * loses sessions.
 *
 * @param __seconds the time; 0 or less for no limit.
 * @return MI_SUCCESS.
 */
LIBMILTER_API int smfi_settimeout(int __seconds);

/**
 * Sets the address that the MTA connects to.
 *
 * Call it before the socket is opened. The text is copied and looked at only when the socket is opened. Accepted
 * are "unix:PATH" and "local:PATH", a PATH without colon, "inet:PORT", "inet:PORT@HOST", "inet6:PORT",
 * "inet6:PORT@HOST" and "fd:NUMBER". HOST is a name, or a numeric address in brackets.
 *
 * @param __address the address.
 * @return MI_SUCCESS, or MI_FAILURE if address is NULL or empty.
 */
LIBMILTER_API int smfi_setconn(char *__address);

/**
 * Ends the filter: no new sessions are accepted and smfi_main() returns.
 *
 * Call it from any thread, callback or signal handler; it returns at once.
 *
 * @return MI_SUCCESS.
 */
LIBMILTER_API int smfi_stop(void);

/**
 * Sets the largest payload, in octets, that a packet from or to the MTA may have.
 *
 * It holds for sessions that begin later. No MTA needs this call.
 *
 * @param __size the new limit.
 * @return the former limit, MILTER_MAX_DATA_SIZE at first.
 */
LIBMILTER_API size_t smfi_setmaxdatasize(size_t __size);

/**
 * Tells the version of the interface that the library in use has.
 *
 * The numbers are those of SM_LM_VRS_MAJOR(SMFI_VERSION) and so on at the time when the library was built. Call
 * it at any time. A pointer may be NULL if that number is of no interest.
 *
 * @param __major where to store the first number.
 * @param __minor where to store the second number.
 * @param __patch_level where to store the third number.
 * @return MI_SUCCESS.
 */
LIBMILTER_API int smfi_version(unsigned int *__major, unsigned int *__minor, unsigned int *__patch_level);

/**
 * Looks up a macro that the MTA sent for this session.
 *
 * Call it in any callback except xxfi_negotiate. The value of the latest stage is found first.
 *
 * @param __ctx the session.
 * @param __name the macro: a letter, or a longer name in braces; braces around a letter make no difference.
 * @return the value, valid until the MTA sends the macros of that stage again or the session ends; NULL if
 * there is no such macro or an argument is NULL.
 */
LIBMILTER_API char *smfi_getsymval(SMFICTX *__ctx, char *__name);

/**
 * Sets the SMTP reply with which the MTA refuses, in place of its own wording.
 *
 * Call it in any callback except xxfi_negotiate. The reply is used by the next verdict SMFIS_REJECT if its code
 * begins with 5, by the next SMFIS_TEMPFAIL if it begins with 4, and replaces an earlier one. Strings are copied.
 *
 * @param __ctx the session.
 * @param __code three digits, the first of them 4 or 5.
 * @param __status an enhanced status code such as "5.7.1", or NULL.
 * @param __text one line without CR and LF of at most 980 octets, or NULL.
 * @return MI_SUCCESS, or MI_FAILURE if an argument is not as said; an earlier reply then stays.
 */
LIBMILTER_API int smfi_setreply(SMFICTX *__ctx, char *__code, char *__status, char *__text);

/**
 * Stores a pointer of the filter's own with the session.
 *
 * Call it in any callback. The library never looks behind the pointer; free what it points to in xxfi_close.
 *
 * @param __ctx the session.
 * @param __data the pointer, which replaces an earlier one.
 * @return MI_SUCCESS, or MI_FAILURE if ctx is NULL.
 */
LIBMILTER_API int smfi_setpriv(SMFICTX *__ctx, void *__data);

/**
 * Returns the pointer that smfi_setpriv() stored.
 *
 * Call it in any callback.
 *
 * @param __ctx the session.
 * @return the pointer; NULL if there is none or ctx is NULL.
 */
LIBMILTER_API void *smfi_getpriv(SMFICTX *__ctx);

/**
 * Tells the MTA which macros the filter wants at a stage.
 *
 * Call it in xxfi_negotiate, once for a stage; later calls have no effect on the MTA. The list is copied.
 *
 * @param __ctx the session.
 * @param __stage SMFIM_CONNECT, SMFIM_HELO and so on.
 * @param __macros the names with blanks between them; empty for none.
 * @return MI_SUCCESS, or MI_FAILURE if ctx or macros is NULL, there is no such stage or its list is set already.
 */
LIBMILTER_API int smfi_setsymlist(SMFICTX *__ctx, int __stage, char *__macros);

/**
 * Sets an SMTP reply of several lines with which the MTA refuses.
 *
 * As smfi_setreply(), but with the text as a list of lines that ends with NULL, cast to char pointer:
 * smfi_setmlreply(ctx, "550", "5.7.1", "first", "second", (char *) NULL).
 *
 * @param __ctx the session.
 * @param __code three digits, the first of them 4 or 5.
 * @param __status an enhanced status code such as "5.7.1"; NULL stands for "4.0.0" or "5.0.0".
 * @return MI_SUCCESS, or MI_FAILURE if an argument is not as said, there are more than 32 lines, or a line is
 * longer than 980 octets or contains CR or LF; an earlier reply then stays.
 */
LIBMILTER_API int smfi_setmlreply(SMFICTX *__ctx, const char *__code, const char *__status, ...);

/**
 * Appends a header field to the message.
 *
 * Call it in xxfi_eom, with the action SMFIF_ADDHDRS. Strings are copied. The text goes out as it is: fold long
 * values with a line feed and white space.
 *
 * @param __ctx the session.
 * @param __name the name of the field, without colon.
 * @param __value the value; may be empty.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, name is NULL or empty, value is NULL, the field
 * does not fit into a packet or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_addheader(SMFICTX *__ctx, char *__name, char *__value);

/**
 * Changes or removes a header field of the message.
 *
 * Call it in xxfi_eom, with the action SMFIF_CHGHDRS. Strings are copied.
 *
 * @param __ctx the session.
 * @param __name the name of the field, without colon.
 * @param __index which of the fields of that name, counted from 1; if there are fewer, a field is added.
 * @param __value the new value; NULL or empty removes the field.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, name is NULL or empty, index is negative, the
 * field does not fit into a packet or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_chgheader(SMFICTX *__ctx, char *__name, int __index, char *__value);

/**
 * Inserts a header field into the message.
 *
 * Call it in xxfi_eom, with the action SMFIF_ADDHDRS. Strings are copied.
 *
 * @param __ctx the session.
 * @param __index how many of the fields of the message as it was received come before it; 0 is the very front, a
 * number beyond the last field the end.
 * @param __name the name of the field, without colon.
 * @param __value the value; may be empty.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, index is negative, name is NULL or empty, value
 * is NULL, the field does not fit into a packet or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_insheader(SMFICTX *__ctx, int __index, char *__name, char *__value);

/**
 * Replaces the envelope sender of the message.
 *
 * Call it in xxfi_eom, with the action SMFIF_CHGFROM. Strings are copied.
 *
 * @param __ctx the session.
 * @param __address the new sender.
 * @param __arguments ESMTP arguments with blanks between them, or NULL.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, address is NULL or empty, both do not fit into a
 * packet or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_chgfrom(SMFICTX *__ctx, char *__address, char *__arguments);

/**
 * Adds a recipient to the message.
 *
 * Call it in xxfi_eom, with the action SMFIF_ADDRCPT. The string is copied.
 *
 * @param __ctx the session.
 * @param __address the recipient.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, address is NULL or empty, it does not fit into
 * a packet or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_addrcpt(SMFICTX *__ctx, char *__address);

/**
 * Adds a recipient with ESMTP arguments to the message.
 *
 * Call it in xxfi_eom, with the action SMFIF_ADDRCPT_PAR; SMFIF_ADDRCPT does not do. Strings are copied.
 *
 * @param __ctx the session.
 * @param __address the recipient.
 * @param __arguments ESMTP arguments with blanks between them, or NULL.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, address is NULL or empty, both do not fit into a
 * packet or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_addrcpt_par(SMFICTX *__ctx, char *__address, char *__arguments);

/**
 * Removes a recipient from the message.
 *
 * Call it in xxfi_eom, with the action SMFIF_DELRCPT. The string is copied.
 *
 * @param __ctx the session.
 * @param __address the recipient, spelled as xxfi_envrcpt was given it.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, address is NULL or empty, it does not fit into
 * a packet or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_delrcpt(SMFICTX *__ctx, char *__address);

/**
 * Tells the MTA that the filter is still at work, so that it starts its timeout again.
 *
 * Call it in xxfi_eom; with Postfix in any callback except xxfi_negotiate. Other threads may call it while the
 * callback runs. What was modified so far goes out, too.
 *
 * @param __ctx the session.
 * @return MI_SUCCESS; MI_FAILURE if ctx is NULL or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_progress(SMFICTX *__ctx);

/**
 * Replaces the body of the message.
 *
 * Call it in xxfi_eom, with the action SMFIF_CHGBODY. The first call throws the old body away, the next ones
 * append. The octets are copied; lines end in CR LF.
 *
 * @param __ctx the session.
 * @param __body the octets, or NULL if length is 0.
 * @param __length how many; 0 empties the body.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, length is negative, body is NULL with a length,
 * or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_replacebody(SMFICTX *__ctx, unsigned char *__body, int __length);

/**
 * Quarantines the message: the MTA keeps it, undelivered, until somebody decides.
 *
 * Call it in xxfi_eom, with the action SMFIF_QUARANTINE. The string is copied.
 *
 * @param __ctx the session.
 * @param __reason why, for whoever looks into the queue.
 * @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, reason is NULL or empty, it does not fit into a
 * packet or the MTA cannot be reached.
 */
LIBMILTER_API int smfi_quarantine(SMFICTX *__ctx, char *__reason);

#ifdef __cplusplus
}
#endif

#endif /* _LIBMILTER_MFAPI_H */
