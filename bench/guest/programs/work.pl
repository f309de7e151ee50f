# Hashes, regular expressions, sorting, string building.
use strict;
my ($seed, %count, @words) = (1);
for (1 .. 15000) {
  $seed = ($seed * 1103515245 + 12345) % 2147483648;
  my $word = join '', map { chr(97 + ($seed >> $_ * 4) % 26) } 1 .. 4;
  push @words, $word;
  $count{$word}++;
}
my $vowels = grep { /^[aeiou].*[^aeiou]$/ } @words;
my $text = join ' ', @words[0 .. 9999];
(my $changed = $text) =~ s/(\w)(\w+)/\u$1$2/g;
my @common = (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 19];
my $sum = 0;
$sum = ($sum * 31 + ord) % 1000003 for split //, $changed;
print "$vowels $sum @common\n";
