# ptq mistake: what it lists and refuses, and two mistakes on a few pictures. All of them run, and
# what they print is compared, with the pages of docs/mistakes.
. tests/shared/cli.sh
shapes=examples/models/resnet8-shapes10.safetensors

"$BUILD/shapes10" "$dir/data" --train 20 --test 20 >"$dir/out" 2>&1 || wrong "no data were drawn"

accepts mistake --list
[ "$(wc -l <"$dir/out")" -eq "$(ls docs/mistakes/[0-9]*.md | wc -l)" ] ||
    wrong "there are not as many mistakes as pages about them"
refuses "which mistake" mistake
refuses "no mistake 'yes'" mistake yes
refuses "at most half" mistake comparing-runs --model $shapes --data "$dir/data" --samples 10

accepts mistake random-calibration --model $shapes --data "$dir/data" --samples 10 --limit 10
prints "look random"
prints "are constant"
accepts mistake lost-scale --model $shapes --data "$dir/data" --samples 10 --limit 10
prints "tensor fc.weight_scale is missing"
[ "$(grep -c 'ptq_self_test_check' "$dir/out")" -eq 3 ] || wrong "a lost scale passed the self-test"

exit $((failures > 0))
