"""A filter of pymilter's that makes every change and calls every function that the module has.

Every message carries what the callbacks were given, in the X-Saw fields that the filter adds at the end.
"""

import sys

import Milter


@Milter.rejected_recipients
class EveryChange(Milter.Base):
    def __init__(self):
        self.saw = []
        self.octets = 0
        self.aborted = 0

    def note(self, *words):
        self.saw.append(" ".join(ascii(word) for word in words))
        return Milter.CONTINUE

    def connect(self, host, family, address):
        # The port is another one each time.
        place = address[:1] + address[2:] if isinstance(address, tuple) else address
        return self.note("connect", host, family, place, self.getsymval("j"))

    def hello(self, name):
        return self.note("helo", name)

    def envfrom(self, sender, *arguments):
        self.octets = 0
        self.saw = [line for line in self.saw if line.startswith(("'connect'", "'helo'"))]
        self.recipients = []
        self.note("from", sender, *arguments)
        return self.note("macros", self.getsymval("{mail_addr}"), self.getsymval("{no_such}"))

    @Milter.symlist("{rcpt_mailer}", "{rcpt_addr}")
    def envrcpt(self, recipient, *arguments):
        self.note("to", recipient, *arguments, self.getsymval("{rcpt_addr}"), self.getsymval("{rcpt_mailer}"))
        if recipient == "<ferry@pier.example>":
            self.setreply("550", "5.7.1", "The ferry takes", "no mail, 100%%", "of the time")
            return Milter.REJECT
        self.recipients.append(recipient)
        return Milter.CONTINUE

    def data(self):
        return self.note("data")

    @Milter.decode("bytes")
    def header(self, name, value):
        return self.note("header", name, value)

    def eoh(self):
        return self.note("eoh")

    def body(self, piece):
        self.octets += len(piece)
        return Milter.CONTINUE

    def unknown(self, command):
        return self.note("unknown", command)

    def eom(self):
        self.note("end", self.octets, self.aborted)
        self.progress()
        self.addheader("X-Added", "at the end")
        self.addheader("X-Inserted", "at the top", 0)
        self.addheader("X-Inserted", "in third\n\tplace, folded", 3)
        self.chgheader("Subject", 1, "Changed")
        self.chgheader("X-Same", 2, None)
        self.chgheader("X-Same", 100, "the hundredth")
        self.chgheader("X-Not-There", 1, "now it is")
        self.chgfrom("<keeper@lighthouse.example>", "RET=HDRS")
        self.addrcpt("<archive@harbour.example>")
        self.addrcpt("<copy@harbour.example>", "NOTIFY=NEVER")
        self.delrcpt("<watch@harbour.example>")
        if self.octets < 100000:
            self.replacebody(b"Another body\r\n")
            self.replacebody(b"in three\r\npieces " + b"=" * 70000)
            self.replacebody(b"\r\n")
        for number, line in enumerate(self.saw):
            self.addheader("X-Saw-%d" % number, line[:900])
        return Milter.CONTINUE

    def abort(self):
        self.aborted += 1
        return Milter.CONTINUE


class Judge(Milter.Base):
    """Passes the verdict that the subject names."""

    @Milter.noreply
    def connect(self, host, family, address):
        return Milter.CONTINUE

    @Milter.nocallback
    def hello(self, name):
        raise AssertionError("declined")

    def header(self, name, value):
        if name.lower() == "subject":
            self.subject = value
        return Milter.CONTINUE

    def eom(self):
        if self.subject == "quarantine":
            self.quarantine("a good reason")
            return Milter.ACCEPT
        if self.subject == "two lines":
            self.setreply("451", "4.7.1", "first", "second")
            return Milter.TEMPFAIL
        if self.subject == "exception":
            raise RuntimeError("as asked")
        return getattr(Milter, self.subject.upper())


address, kind = sys.argv[1:]
Milter.factory = {"every-change": EveryChange, "judge": Judge}[kind]
Milter.set_exception_policy(Milter.TEMPFAIL)
Milter.set_flags(sum({Milter.ADDHDRS, Milter.CHGHDRS, Milter.CHGBODY, Milter.ADDRCPT, Milter.ADDRCPT_PAR,
                      Milter.DELRCPT, Milter.CHGFROM, Milter.QUARANTINE, Milter.SETSYMLIST}))
Milter.runmilter("every-change", address, 60)
