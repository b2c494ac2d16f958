# Turns `uci show wantastic` (standard input) into wantasticd's JSON configuration.
#
# A section of type "wantastic" holds the fields of the top level; one of type "peer" is an entry of
# `peers`; any other type is the table of that name. Options that wantasticd wants as numbers, truth
# values or lists are named below; everything else is text. What only the init script reads is left
# out. An option that wantasticd does not know reaches it and is reported there.

BEGIN {
	words("cache_entries fwmark listen_port mtu persistent_keepalive port threads", NUMBER)
	words("allow_lan default_route enabled insecure strict_port", TRUTH)
	words("addresses allow allowed_ips deny dns routes search servers", LIST)
	words("wantastic.enabled wantastic.config_file wantastic.debug", OURS)
	split("", tables)
}

function words(text, set, list, n, i) {
	n = split(text, list, " ")
	for (i = 1; i <= n; i++)
		set[list[i]] = 1
}

# Quote for JSON: the input is one line, so of the control characters only tabs can be in it.
function quoted(text) {
	gsub(/\\/, "&&", text)
	gsub(/"/, "\\\\&", text)
	gsub(/\t/, "\\t", text)
	return "\"" text "\""
}

# Split 'a' 'b' into values[1..n]; uci writes a quote inside a value as '\''.
function parse(text, values, n, at) {
	n = 0
	while (match(text, /^ *'/)) {
		text = substr(text, RLENGTH + 1)
		value = ""
		while ((at = index(text, "'")) > 0) {
			value = value substr(text, 1, at - 1)
			text = substr(text, at + 1)
			if (substr(text, 1, 3) != "\\''")
				break
			value = value "'"
			text = substr(text, 4)
		}
		values[++n] = value
	}
	if (n == 0 && text != "")
		values[++n] = text
	return n
}

function one(name, value) {
	if (name in NUMBER && value ~ /^-?[0-9]+$/)
		return value
	if (name in TRUTH) {
		if (value ~ /^(1|on|true|yes|enabled)$/)
			return "true"
		if (value ~ /^(0|off|false|no|disabled)$/)
			return "false"
	}
	return quoted(value)
}

{
	at = index($0, "=")
	path = substr($0, 1, at - 1)
	count = split(path, part, ".")
	# A name can hold dots only inside @type[index], which has none: package.section[.option]
	section = part[2]
	text = substr($0, at + 1)
	if (count == 2) {
		gsub(/'/, "", text)
		type[section] = text
		order[++sections] = section
		next
	}
	if (count != 3 || !(section in type))
		next
	option = part[3]
	if ((type[section] "." option) in OURS)
		next
	split("", values)
	n = parse(text, values)
	if (option in LIST) {
		json = ""
		for (i = 1; i <= n; i++)
			json = json (i > 1 ? ", " : "") quoted(values[i])
		json = "[" json "]"
	} else {
		json = one(option, values[1])
	}
	body[section] = body[section] (body[section] == "" ? "" : ", ") quoted(option) ": " json
}

END {
	out = ""
	peers = ""
	for (i = 1; i <= sections; i++) {
		section = order[i]
		if (body[section] == "")
			continue
		if (type[section] == "wantastic")
			item = body[section]
		else if (type[section] == "peer") {
			peers = peers (peers == "" ? "" : ", ") "{" body[section] "}"
			continue
		} else
			item = quoted(type[section]) ": {" body[section] "}"
		out = out (out == "" ? "" : ",\n ") item
	}
	if (peers != "")
		out = out (out == "" ? "" : ",\n ") "\"peers\": [" peers "]"
	print "{" out "}"
}
