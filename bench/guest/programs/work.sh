# A shell loop: arithmetic, functions, expansions, no programs started.
step() {
  case $1 in
    *[02468]) x=$((x / 2)) ;;
    *) x=$((3 * x + 1)) ;;
  esac
}
steps=0 i=1
while [ $i -le 250 ]; do
  x=$i
  while [ $x -ne 1 ]; do
    step $x
    steps=$((steps + 1))
  done
  i=$((i + 1))
done
text=
for word in one two three four five six seven eight; do text="$text ${word%e} ${#word}"; done
echo "$steps$text"
