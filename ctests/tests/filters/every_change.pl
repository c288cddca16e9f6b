# A filter of Sendmail::Milter's that calls every function of its contexts.

use strict;
use warnings;
use Sendmail::Milter;
use Socket qw(AF_INET sockaddr_family unpack_sockaddr_in inet_ntoa);

my %callbacks = (
    connect => sub {
        my ($context, $host, $address) = @_;
        my $place = 'elsewhere';
        if (defined $address && sockaddr_family($address) == AF_INET) {
            my ($port, $ip) = unpack_sockaddr_in($address);
            $place = inet_ntoa($ip);
        }
        $context->setpriv({ connect => "$host $place " . $context->getsymval('j') });
        return SMFIS_CONTINUE;
    },
    helo => sub {
        my ($context, $name) = @_;
        my $session = $context->getpriv();
        $session->{helo} = $name;
        $context->setpriv($session);
        return SMFIS_CONTINUE;
    },
    envfrom => sub {
        my ($context, @arguments) = @_;
        my $session = $context->getpriv();
        $session->{saw} = ["from @arguments", 'macro ' . ($context->getsymval('{mail_addr}') // 'none')];
        $session->{octets} = 0;
        $context->setpriv($session);
        return SMFIS_CONTINUE;
    },
    envrcpt => sub {
        my ($context, @arguments) = @_;
        my $session = $context->getpriv();
        push @{$session->{saw}}, "to @arguments";
        $context->setpriv($session);
        if ($arguments[0] eq '<ferry@pier.example>') {
            $context->setreply('550', '5.7.9', 'The ferry takes no mail');
            return SMFIS_REJECT;
        }
        return SMFIS_CONTINUE;
    },
    header => sub {
        my ($context, $name, $value) = @_;
        my $session = $context->getpriv();
        push @{$session->{saw}}, "header $name " . length($value);
        $session->{subject} = $value if lc $name eq 'subject';
        $context->setpriv($session);
        return SMFIS_CONTINUE;
    },
    eoh => sub { return SMFIS_CONTINUE; },
    body => sub {
        my ($context, $piece, $length) = @_;
        my $session = $context->getpriv();
        $session->{octets} += length $piece;
        $context->setpriv($session);
        return SMFIS_CONTINUE;
    },
    eom => sub {
        my ($context) = @_;
        my $session = $context->getpriv();
        my $subject = delete $session->{subject} // '';
        $context->setpriv($session);
        if ($subject eq 'tempfail') {
            $context->setreply('451', '4.7.8', 'Postponed as asked');
            return SMFIS_TEMPFAIL;
        }
        return SMFIS_REJECT if $subject eq 'reject';
        $context->addheader('X-Added', 'at the end');
        $context->chgheader('Subject', 1, 'Changed');
        $context->chgheader('X-Same', 2, '');
        $context->addrcpt('<archive@harbour.example>');
        $context->delrcpt('<watch@harbour.example>');
        $context->replacebody("Another body\r\n") if $session->{octets} < 100_000;
        my $number = 0;
        for my $line ($session->{connect}, $session->{helo}, @{$session->{saw}}, "octets $session->{octets}") {
            $context->addheader('X-Saw-' . $number++, $line);
        }
        return SMFIS_CONTINUE;
    },
    abort => sub { return SMFIS_CONTINUE; },
    close => sub {
        my ($context) = @_;
        $context->setpriv(undef);
        return SMFIS_CONTINUE;
    },
);

my ($address) = @ARGV;
Sendmail::Milter::setconn($address) or die 'setconn';
Sendmail::Milter::settimeout(60) or die 'settimeout';
Sendmail::Milter::register('every-change', \%callbacks, SMFI_CURR_ACTS) or die 'register';
# One interpreter: with more, each call may get another one, and what setpriv keeps stays in the old one.
Sendmail::Milter::main(1) or die 'main';
