# A filter script for MIMEDefang that passes judgment at every stage and makes every change.

$AdminAddress = 'postmaster@harbour.example';
$AdminName = 'Keeper';
$DaemonAddress = 'mimedefang@harbour.example';
$AddWarningsInline = 0;
md_graphdefang_log_enable('mail', 0);

sub filter_relay {
    return ('CONTINUE', 'ok');
}

sub filter_helo {
    return ('CONTINUE', 'ok');
}

sub filter_sender {
    my ($sender) = @_;
    return ('REJECT', 'Nobody writes from there') if $sender =~ /outlaw/;
    return ('CONTINUE', 'ok');
}

sub filter_recipient {
    my ($recipient) = @_;
    return ('REJECT', 'The ferry takes no mail', '550', '5.7.9') if $recipient =~ /ferry/;
    return ('CONTINUE', 'ok');
}

sub filter_begin {
    my ($entity) = @_;
    return action_bounce('Refused as asked', '554', '5.7.8') if $Subject eq 'bounce';
    return action_tempfail('Postponed as asked', '451', '4.7.8') if $Subject eq 'tempfail';
}

sub filter {
    my ($entity, $name, $extension, $type) = @_;
    return action_drop_with_warning("An attachment was dropped.\n") if $type eq 'text/csv';
    return action_accept();
}

sub filter_end {
    my ($entity) = @_;
    return if message_rejected();
    action_add_header('X-Defang-Added', "at the end");
    action_insert_header('X-Defang-Inserted', 'at the top', 0);
    action_change_header('Subject', "Changed: $Subject") if $Subject ne '';
    action_change_header('X-Same', 'the second', 2);
    action_delete_header('X-Same', 3);
    action_delete_all_headers('X-Empty');
    action_add_header('X-Defang-Saw', join(' ', $Sender, scalar(@Recipients), $RelayAddr, $Helo, $MessageID));
    add_recipient('<archive@harbour.example>');
    delete_recipient('<watch@harbour.example>');
    change_sender('<keeper@lighthouse.example>') if $Subject eq 'sender';
    action_sm_quarantine('as asked') if $Subject eq 'quarantine';
}

1;
