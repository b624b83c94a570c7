#!/usr/bin/perl
# A scheduler in Perl: the provider whose IPv4 address shares most leading bits
# with the client's, and among equals the one with the fewest requests.
#
#   service_web_scheduler="exec:/usr/local/lib/pegasus/nearest.pl"
use strict;
use warnings;

$| = 1;    # answers must leave at once

sub bits {
    my ($address) = @_;
    return $address =~ /^(\d+)\.(\d+)\.(\d+)\.(\d+)/ ? ($1 << 24) + ($2 << 16) + ($3 << 8) + $4 : 0;
}

while (my $line = <STDIN>) {
    my ($kind, @words) = split ' ', $line;
    next unless $kind eq 'next';
    my %pair = map { split /=/, $_, 2 } @words;
    my @candidates = split /,/, $pair{candidates};
    my @active     = split /,/, $pair{active};
    my $client     = bits($pair{client} // '');
    my @order = sort {
        (bits($candidates[$a]) ^ $client) <=> (bits($candidates[$b]) ^ $client)
            || $active[$a] <=> $active[$b]
    } 0 .. $#candidates;
    print "id=$pair{id} provider=$candidates[$order[0]]\n";
}
