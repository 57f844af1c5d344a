#!/bin/sh
# build.sh PAGE.html PARTS: puts the page together on standard output. A line "@include FILE" stands for
# a file of this folder, without the imports of its modules; "@base64 ID FILE" for a script element
# of that id with a file of PARTS.
here=$(dirname "$0")
parts=$2
while IFS= read -r line; do
    # shellcheck disable=SC2086
    set -- $line
    case $1 in
    @include) sed '/^import /d' "$here/$2" || exit 1 ;;
    @base64)
        echo "<script type=\"text/plain\" id=\"$2\">"
        base64 <"$parts/$3" || exit 1
        echo '</script>'
        ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$1"
