# Sourced by the scripts that write measured tables into a page.

# put PAGE TABLE BEGIN END: replaces what stands between two lines of the page by the table, a file.
put() {
  grep -qxF "$3" "$1" && grep -qxF "$4" "$1" || { echo "$1: no line \"$3\" or \"$4\"" >&2; exit 1; }
  awk -v table="$2" -v begin="$3" -v end="$4" '
    $0 == end { skip = 0 }
    !skip { print }
    $0 == begin { print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
  ' "$1" > "$1.new"
  mv "$1.new" "$1"
}
