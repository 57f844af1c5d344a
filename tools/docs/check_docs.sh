#!/bin/sh
# Checks README.md, docs/ and the README files of the examples; run it in the project's directory.
#
#     sh tools/docs/check_docs.sh             check all, as the tests do
#     sh tools/docs/check_docs.sh --static    without running the commands of the course
#     sh tools/docs/check_docs.sh --update    put what the commands print into the text
#     ... --slow                         with those commands, too, that take long (a minute more)
#     sh tools/docs/check_docs.sh --parts PAGE    print the blocks "```c part" of a page
#
# The pages of the course are docs/README.md, docs/N-*.md and docs/mistakes/*.md. All their blocks
# of commands run in one shell, in this order:
#
#     ```sh          is run; what it prints must be the block "```text" that follows, if one does
#     ```sh slow     is run with --slow only
#     ```sh times    is run, and what it prints is not compared
#     ```sh example  is not run
#     ```c           must compile: a whole file, or the inside of a function
#     ```c part      is compiled by the commands of the page
#     ```c ptq.h     must stand so in ptq.h
#
# A number in the prose that follows from what the last block printed stands between two comments,
#     <!--= COMMAND -->NUMBER<!---->
# and must be what COMMAND prints when it reads that. Figures that the commands draw into
# build/course/ must be those in docs/figures/.
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
mode=check
slow=0
if [ "${1:-}" = --parts ]; then
    exec awk '/^```c part/ { inside = 1; next } /^```/ { inside = 0 } inside' "$2"
fi
for option in "$@"; do
    case $option in
    --static | --update) mode=$option ;;
    --slow) slow=1 ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0"
        exit 1
        ;;
    esac
done
unset PTQ_ISA PTQ_MODEL CIFAR10_DIR MAKEFLAGS MFLAGS MAKELEVEL
work=build/docs
rm -rf $work
mkdir -p $work build/course
rm -f build/course/*.svg
failures=0

wrong() {
    echo "$*"
    failures=$((failures + 1))
}

course="docs/README.md $(echo docs/[0-9]*-*.md docs/mistakes/*.md)" # in this order
pages=$(ls README.md docs/*.md docs/*/*.md examples/*/README.md tests/README.md tests/*/README.md tools/README.md tools/*/README.md 2>/dev/null)

# ---- The commands of the course ----

# What both programs below know of blocks: after this, `opens` says that the line opens one of
# commands, which is number n; `closes` that it closes any.
blocks='
    { opens = closes = 0 }
    /^```/ && inside { inside = 0; closes = 1 }
    /^```/ && !closes { inside = 1; info = substr($0, 4); opens = info ~ /^sh( |$)/; n += opens }'

# Block by block into FILE.N, with the words behind "sh" as first line of FILE.N.how.
extract() { # PAGE PREFIX
    awk -v prefix="$2" "$blocks"'
        closes { commands = 0 }
        commands { print >(prefix "." n) }
        opens { commands = 1; print info >(prefix "." n ".how"); printf "" >(prefix "." n) }' "$1"
}

# Runs all of them in this shell and leaves what block N printed in PREFIX.N.out. The variables here
# have long names, so that the commands do not change them.
run_blocks() {
    set +u
    for docs_page in $course; do
        docs_prefix=$work/$(echo "$docs_page" | tr / _)
        extract "$docs_page" "$docs_prefix"
        for docs_block in $(ls "$docs_prefix".*.how 2>/dev/null | sort -t. -k3n); do
            docs_how=$(cat "$docs_block")
            docs_block=${docs_block%.how}
            case $docs_how in
            "sh example") continue ;;
            "sh slow") [ $slow = 1 ] || continue ;;
            esac
            . "./$docs_block" >"$docs_block.out" 2>&1
            echo $? >"$docs_block.status"
            [ "$docs_how" != "sh times" ] || mv "$docs_block.out" "$docs_block.times"
        done
    done
    set -u
}

# The page as it should be.
rewrite() { # PAGE PREFIX
    awk -v prefix="$2" "$blocks"'
        function exists(file, found) {
            found = (getline line <file) >= 0
            close(file)
            return found
        }
        opens { output = prefix "." n ".out"; ran = exists(output) }
        closes && skipping { skipping = 0 }
        skipping { next }
        inside && !opens && /^```text/ && waiting && ran {
            print
            while ((getline line <output) > 0) { sub(/[ \t]+$/, "", line); print line }
            close(output)
            skipping = 1
            waiting = 0
            next
        }
        closes { waiting = info ~ /^sh( |$)/ }
        !closes && /[^ ]/ { waiting = 0 }
        !inside && ran {
            rest = $0
            $0 = ""
            while (match(rest, /<!--= [^>]* -->[^<]*<!---->/)) {
                mark = substr(rest, RSTART, RLENGTH)
                match(mark, /<!--= [^>]* -->/)
                command = substr(mark, 7, RLENGTH - 10)
                value = ""
                (command " <" output) | getline value
                close(command " <" output)
                match(rest, /<!--= [^>]* -->[^<]*<!---->/)
                $0 = $0 substr(rest, 1, RSTART - 1) "<!--= " command " -->" value "<!---->"
                rest = substr(rest, RSTART + RLENGTH)
            }
            $0 = $0 rest
        }
        { print }' "$1"
}

check_blocks() {
    for page in $course; do
        prefix=$work/$(echo "$page" | tr / _)
        rewrite "$page" "$prefix" >"$prefix.new"
        for status in "$prefix".*.status; do
            [ -f "$status" ] || continue
            block=${status%.status}
            # A command that fails on purpose has its message in the text.
            if [ "$(cat "$status")" != 0 ] && ! grep -q '^ptq [a-z]*: ' "$block.out"; then
                wrong "$page: these commands failed:"
                sed 's/^/    /' "$block"
                tail -n 5 "$block".[ot]* | sed 's/^/    /'
            fi
        done
        if cmp -s "$page" "$prefix.new"; then continue; fi
        if [ "$mode" = --update ]; then
            cat "$prefix.new" >"$page"
            echo "$page: updated"
        else
            wrong "$page: its commands print something else (sh tools/docs/check_docs.sh --update):"
            diff "$page" "$prefix.new" | sed 's/^/    /' | head -n 40
        fi
    done
}

check_figures() {
    for drawn in build/course/*.svg; do
        kept=docs/figures/$(basename "$drawn")
        if [ ! -f "$drawn" ] || cmp -s "$drawn" "$kept"; then continue; fi
        if [ "$mode" = --update ]; then
            cp "$drawn" "$kept"
            echo "$kept: updated"
        else
            wrong "$kept: is drawn otherwise now (sh tools/docs/check_docs.sh --update [--slow])"
        fi
    done
    for kept in docs/figures/*.svg; do
        grep -q "$(basename "$kept")" $pages || wrong "$kept: no page shows it"
    done
}

# ---- C ----

# A file for the compiler from block N of a page: nothing of the implementation, which takes long;
# what is not at file scope goes into a function.
check_c() {
    for page in $pages; do
        awk -v prefix="$work/$(echo "$page" | tr / _)" '
            /^```c$/ { n++; inside = 1; file = prefix "." n ".block"; printf "" >file; next }
            /^```/ { inside = 0 }
            inside { print >file }' "$page"
        for block in "$work/$(echo "$page" | tr / _)".*.block; do
            [ -f "$block" ] || continue
            {
                printf '#include <%s>\n' math.h stdint.h stdio.h stdlib.h string.h
                grep '^#' "$block" | grep -v PTQ_IMPLEMENTATION
                echo '#include "ptq.h"'
                if grep -q '^{' "$block"; then
                    grep -v '^#' "$block"
                else
                    echo 'int example(const uint8_t *pixels); int example(const uint8_t *pixels) {'
                    grep -v '^#' "$block"
                    echo '(void)pixels; return 0; }'
                fi
            } >"$block.c"
            ${CC:-cc} -std=c99 -Wall -Wextra -I. -fsyntax-only "$block.c" >"$block.log" 2>&1 ||
                wrong "$page: a C block does not compile: $(grep error "$block.log" | head -n 2)"
        done
    done
}

# Quotations from ptq.h: the same lines, one after the other, there.
check_quotations() {
    for page in $pages; do
        awk -v page="$page" '
            NR == FNR { text = $0; next }
            /^```c ptq.h$/ { inside = 1; quoted = ""; next }
            /^```/ && inside {
                inside = 0
                if (!index(text, quoted)) { print page ": not in ptq.h:"; printf "%s", quoted }
            }
            inside { quoted = quoted $0 "\n" }' RS='\001' ptq.h RS='\n' "$page" >"$work/quotations"
        [ ! -s "$work/quotations" ] || wrong "$(cat "$work/quotations")"
    done
}

# ---- What is named ----

# Lines of code: in fences, indented by four spaces, or between backquotes; continued lines joined.
code_of() {
    awk '
        /^```/ { inside = !inside; next }
        inside || /^    / { line = line $0; if (sub(/\\$/, "", line)) next; print line; line = ""; next }
        { n = split($0, part, "`"); for (i = 2; i <= n; i += 2) print part[i] }' "$1"
}

# Every subcommand and option of ptq, and every target of make, exists.
check_usage() {
    for page in $pages; do
        code_of "$page" | grep -o 'ptq [a-z]\+\( [^|;#]*\)\?' | sort -u >"$work/used"
        while read -r program subcommand options; do
            help=$work/help.$subcommand
            [ -f "$help" ] || build/ptq "$subcommand" --help >"$help" 2>&1
            if ! grep -q '^usage: ptq' "$help"; then
                wrong "$page: there is no '$program $subcommand'"
                continue
            fi
            for option in $(echo "$options" | grep -o -e '\(^\|[^-A-Za-z]\)--[a-z][a-z-]*' | tr -d ' [('); do
                grep -q -e "$option\b" "$help" || wrong "$page: ptq $subcommand has no $option"
            done
        done <"$work/used"
        code_of "$page" | grep -o '\(^\|[ (]\)make [a-z][a-z0-9_/-]*' | awk '$2 !~ "/" { print $2 }' | sort -u >"$work/used"
        while read -r target; do
            grep -q "^\(.* \)\?$target\( .*\)\?:" Makefile */*.mk || wrong "$page: make has no target $target"
        done <"$work/used"
    done
}

# ---- Links ----

# Text without code: fences, indented code and what stands between backquotes.
prose_of() {
    awk '
        /^```/ { inside = !inside; print ""; next }
        inside || /^    [^ ]/ { print ""; next }
        { gsub(/`[^`]*`/, ""); print }' "$1"
}

# The anchors that git hosts make of headings.
anchors_of() {
    grep '^#\+ ' "$1" | sed 's/^#* //' | tr 'A-Z' 'a-z' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}

check_links() {
    for page in $pages; do
        prose_of "$page" | tr '\n' ' ' | grep -o '](\([^)]*\))' | sed 's/^](//; s/)$//' >"$work/links"
        while read -r link; do
            case $link in http://* | https://* | mailto:*) continue ;; esac
            file=${link%%#*}
            if [ -n "$file" ]; then file=$(dirname "$page")/$file; else file=$page; fi
            if [ ! -e "$file" ]; then
                wrong "$page: there is no $link"
                continue
            fi
            case $link in
            *#*) anchors_of "$file" | grep -qx -e "${link#*#}" || wrong "$page: no anchor $link" ;;
            esac
        done <"$work/links"
        ! grep -n '!\[\]' "$page" || wrong "$page: a picture without a description"
    done
}

# ---- Spelling ----

# Words of one letter, with digits or underscores, or with capitals inside are names.
check_spelling() {
    if ! aspell dicts 2>/dev/null | grep -qx en_GB-ize; then
        echo "spelling is not checked: aspell with en_GB-ize is not installed (Debian: aspell-en)"
        return
    fi
    for page in $pages; do
        unknown=$(prose_of "$page" | sed 's/<!--[^>]*-->//g; s/<[^>]*>//g; s/](\([^)]*\))/]/g
            s#https\{0,1\}://[^ )]*##g; s/[A-Za-z0-9.]*[0-9_./][A-Za-z0-9_./]*/ /g' |
            sed "s/'s\\b//g" | aspell list --master=en_GB-ize --encoding=utf-8 | sort -u | grep -v '^.$\|.[A-Z]' |
            grep -vixF -f tools/docs/words.txt | tr '\n' ' ')
        [ -z "$unknown" ] || wrong "$page: unknown words (tools/docs/words.txt has the known ones): $unknown"
    done
}

if [ "$mode" != --static ]; then
    run_blocks
    check_blocks
    check_figures
fi
check_c
check_quotations
check_usage
check_links
check_spelling
[ $failures -eq 0 ] || echo "$failures wrong"
[ $failures -eq 0 ]
