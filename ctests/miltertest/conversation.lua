-- What the scripts of this directory have in common. They run in this directory; the global
-- "socket" says where the filter listens.

-- miltertest keeps the text of an error to itself.
function check(condition, what)
	if not condition then
		mt.echo("failed: " .. what)
		error(what)
	end
end

function sent(problem)
	check(problem == nil, tostring(problem))
end

-- A step that the filter may have declined, which miltertest counts as a mistake of the script.
local function offer(mta, declined, step, ...)
	if not mt.test_option(mta, declined) then
		sent(step(mta, ...))
	end
end

function expect(mta, reply, what)
	local found = mt.getreply(mta)
	check(found == reply, what .. ": reply " .. string.char(found))
end

-- A session up to HELO.
function greet()
	local mta = mt.connect(socket, 50, 0.1)
	check(mta ~= nil, "no connection to " .. socket)
	sent(mt.negotiate(mta, nil, nil, nil))
	sent(mt.macro(mta, SMFIC_CONNECT, "j", "mx.harbour.example"))
	offer(mta, SMFIP_NOCONNECT, mt.conninfo, "client.example", "192.0.2.1")
	offer(mta, SMFIP_NOHELO, mt.helo, "client.example")
	return mta
end

-- A message up to its last octet, with this many random octets besides a line of text.
function message(mta, fields, octets)
	sent(mt.macro(mta, SMFIC_MAIL, "i", "QUEUED"))
	sent(mt.mailfrom(mta, "<mathilde@lighthouse.example>", "SIZE=1000"))
	expect(mta, SMFIR_CONTINUE, "sender")
	sent(mt.rcptto(mta, "<otto@harbour.example>"))
	expect(mta, SMFIR_CONTINUE, "recipient")
	for name, value in pairs(fields) do
		sent(mt.header(mta, name, value))
	end
	offer(mta, SMFIP_NOEOH, mt.eoh)
	sent(mt.bodystring(mta, "Some text.\r\n"))
	if octets > 0 then
		sent(mt.bodyrandom(mta, octets))
	end
	sent(mt.eom(mta))
end
