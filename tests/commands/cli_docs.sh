# The pages: commands of the course and what they print, C blocks, options named, links, spelling.
# Nothing here depends on the compiler: once is enough. PTQ_TEST_QUICK: without the commands.
if [ "$BUILD" != build ]; then
    echo "skipped: runs in build/ only"
    exit 77
fi
exec sh tools/docs/check_docs.sh ${PTQ_TEST_QUICK:+--static}
