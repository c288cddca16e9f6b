-- The filter of "make demo": refuses a recipient, changes what it lets pass.

dofile("conversation.lua")

local footer = "\r\n-- \r\nChecked by a filter that was compiled against libmilter.\r\n"

local mta = greet()
check(mt.test_action(mta, SMFIF_CHGBODY), "the filter has to ask for changing the body")
check(not mt.test_action(mta, SMFIF_QUARANTINE), "the filter does not quarantine")
check(not mt.test_option(mta, SMFIP_NOBODY), "the filter has to want the body")

sent(mt.mailfrom(mta, "<mathilde@lighthouse.example>"))
sent(mt.rcptto(mta, "<nobody@harbour.example>"))
expect(mta, SMFIR_REPLYCODE, "refused recipient")
sent(mt.abort(mta))

for round = 1, 3 do
	message(mta, { Subject = "Round " .. round }, 0)
	expect(mta, SMFIR_CONTINUE, "end of message")
	check(mt.eom_check(mta, MT_HDRCHANGE, "Subject", "[demo] Round " .. round), "subject")
	check(mt.eom_check(mta, MT_HDRADD, "X-Demo-Filter", "demo saw message QUEUED"), "added field")
	check(mt.eom_check(mta, MT_BODYCHANGE, "Some text.\r\n" .. footer), "body")
	check(mt.getheader(mta, "X-Demo-Filter", 0) == "demo saw message QUEUED", "value of the added field")
	-- What the filter does not do has to be told apart.
	check(not mt.eom_check(mta, MT_HDRADD, "X-Other"), "every field counts as added")
	check(not mt.eom_check(mta, MT_BODYCHANGE, footer), "every body counts as the new one")
	check(not mt.eom_check(mta, MT_RCPTADD, "<otto@harbour.example>"), "every recipient counts as added")
end
mt.disconnect(mta, true)

-- A client that goes in the middle does not harm the next one.
mta = greet()
sent(mt.mailfrom(mta, "<mathilde@lighthouse.example>"))
mt.disconnect(mta, false)
mta = greet()
message(mta, { ["Content-Type"] = "text/html", Subject = "as it is" }, 3000)
expect(mta, SMFIR_CONTINUE, "end of a message in HTML")
check(not mt.eom_check(mta, MT_BODYCHANGE), "the body of a message in HTML has to stay")
mt.disconnect(mta, true)
mt.echo("all done")
