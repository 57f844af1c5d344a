#!/bin/sh
# build.sh PAGE.html PARTS: writes the page, put together, to standard output. In PAGE.html a line
# "@include FILE" stands for a file beside it, without the imports of its modules, and
# "@base64 ID FILE" for a script element of that id that holds a file: one of PARTS where its name
# begins with PARTS/.
set -ef
beside=$(dirname "$1")
parts=$2
while IFS= read -r line; do
    # shellcheck disable=SC2086
    set -- $line
    case $1 in
    @include) sed '/^import /d' "$beside/$2" ;;
    @base64)
        case $3 in
        PARTS/*) file=$parts/${3#PARTS/} ;;
        *) file=$beside/$3 ;;
        esac
        echo "<script type=\"text/plain\" id=\"$2\">"
        base64 <"$file"
        echo '</script>'
        ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$1"
