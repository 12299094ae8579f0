# SPDX-License-Identifier: BSD-3-Clause
#
# The examples of a document, which tests run. Each block of commands, XML or
# configuration has a mark before it, that readers do not see:
#
#     =for example ID [PATH]                  in a manual page
#     <!-- example: ID [PATH] -->             in README.md
#
# With PATH the block is what that file holds, and the text before it says so.
#
#     awk -f examples.awk FILE                prints ID, PATH of each
#     awk -v want=ID -f examples.awk FILE     prints the block with that mark
#
# A block without a mark is an error, as is a mark without a block: no example
# is forgotten. -v sections=REGEX looks at these =head1 of a manual page only.

function complain (what)
{
    print FILENAME ":" FNR ": " what > "/dev/stderr"
    failed = 1
}

# A block begins here: is it known?
function begin_block ()
{
    in_block = 1
    blank_lines = 0
    if (id == "") {
        complain("an example without a mark: " $0)
        return
    }
    if (want == "")
        print id, path
    if (path != "" && index(prose, path) == 0)
        complain("the text before this example does not name " path)
    current = id
    id = ""
}

function begin_mark (mark_id, mark_path)
{
    if (id != "")
        complain("no example follows the mark " id)
    if (mark_id == "" || mark_id in seen)
        complain("a mark that is not new: '" mark_id "'")
    seen[mark_id] = 1
    id = mark_id
    path = mark_path
}

function end_block ()
{
    in_block = 0
    current = ""
}

BEGIN {
    previous = ""
    inside = sections == ""
}

FNR == 1 {
    is_pod = FILENAME ~ /\.pod$/
    indent = is_pod ? "^[ \t]" : "^(    |\t)"
}

is_pod && /^=head1 / {
    end_block()
    if (sections != "")
        inside = substr($0, 8) ~ ("^(" sections ")$")
}

!inside {
    next
}

is_pod && /^=for example/ {
    end_block()
    begin_mark($3, $4)
    previous = ""
    next
}

!is_pod && /^<!-- example: .* -->$/ {
    end_block()
    begin_mark($3, $4 == "-->" ? "" : $4)
    previous = ""
    next
}

!is_pod && /^ *(```|~~~)/ {
    complain("a fence: examples are indented")
}

/^[ \t]*$/ {
    blank_lines++
    previous = ""
    next
}

# Indented lines right after text go on with an item of a list.
$0 ~ indent && (in_block || previous == "") {
    if (!in_block)
        begin_block()
    if (want != "" && current == want) {
        for (; blank_lines > 0; blank_lines--)
            print ""
        line = $0
        sub(is_pod ? "^ " : "^    ", "", line)
        print line
        found = 1
    }
    blank_lines = 0
    previous = $0
    next
}

{
    end_block()
    if (id != "")
        complain("no example follows the mark " id)
    prose = previous == "" ? $0 : prose "\n" $0
    previous = $0
}

END {
    if (id != "")
        complain("no example follows the mark " id)
    if (want != "" && !found) {
        print FILENAME ": no example " want > "/dev/stderr"
        failed = 1
    }
    exit failed
}
