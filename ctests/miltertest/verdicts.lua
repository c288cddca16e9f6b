-- Every verdict at the end of a message, in one session and with the replies that go with them.

dofile("conversation.lua")

local mta = greet()
check(mt.test_action(mta, SMFIF_QUARANTINE), "the filter has to ask for quarantine")

-- miltertest does not understand replies of several lines, such as that of "reject".
local rounds = {
	{ "reject", SMFIR_REPLYCODE, { MT_HDRADD, "X-Judged", "yes" } },
	{ "later", SMFIR_REPLYCODE, { MT_SMTPREPLY, "450", "4.7.1", "Not now" } },
	{ "discard", SMFIR_DISCARD, { MT_HDRADD, "X-Judged", "yes" } },
	{ "accept", SMFIR_ACCEPT, { MT_HDRADD, "X-Judged", "yes" } },
	{ "quarantine", SMFIR_CONTINUE, { MT_QUARANTINE, "asked for" } },
	{ "nothing", SMFIR_CONTINUE, { MT_HDRADD, "X-Judged", "yes" } },
}
for _, round in ipairs(rounds) do
	local verdict, reply, deed = table.unpack(round)
	message(mta, { ["X-Verdict"] = "eom " .. verdict }, 10000)
	expect(mta, reply, verdict)
	check(mt.eom_check(mta, table.unpack(deed)), "deed with " .. verdict)
	check(mt.eom_check(mta, MT_QUARANTINE) == (verdict == "quarantine"), "quarantine with " .. verdict)
end

for recipient, reply in pairs({ reject = SMFIR_REPLYCODE, later = SMFIR_REPLYCODE, otto = SMFIR_CONTINUE }) do
	sent(mt.mailfrom(mta, "<mathilde@lighthouse.example>"))
	sent(mt.rcptto(mta, "<" .. recipient .. "@harbour.example>"))
	expect(mta, reply, recipient)
	sent(mt.abort(mta))
end
mt.disconnect(mta, true)
mt.echo("all done")
