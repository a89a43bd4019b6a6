//! Fetches from a repository behind https or ssh, through libgit2's smart transports.

use std::cell::{Cell, RefCell};

use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions,
    ProxyOptions, RemoteCallbacks, RemoteRedirect, Repository,
};

use super::copy::missing;
use super::error::{FetchError, FetchFailure};
use super::request::{Budget, Credentials, Head, RemoteTask};
use super::url::{NetworkUrl, RemoteUrl};

/// The user whose password is a forge's token, and that ssh logs in as if the URL names none.
const DEFAULT_USER: &str = "git";
/// The most branches that a message lists: enough to notice a misspelled name.
const MAX_LISTED_BRANCHES: usize = 10;

/// Downloads what the branch adds, and returns its head.
pub(super) fn fetch(
    repo: &Repository,
    network: &NetworkUrl,
    url: &RemoteUrl,
    task: &RemoteTask,
    budget: &Budget,
) -> Result<Head, FetchFailure> {
    let introduction = Introduction::new(network, task.credentials.as_ref());
    let result = download(repo, network, url, task, budget, &introduction);
    // The callback knows why credentials were refused; libgit2's error only says that they were.
    match (result, introduction.refused.into_inner()) {
        (Err(FetchFailure::Git(_)), Some(detail)) => {
            Err(FetchFailure::Known(FetchError::AuthFailed {
                url: url.to_string(),
                detail,
            }))
        }
        (result, _) => result,
    }
}

fn download(
    repo: &Repository,
    network: &NetworkUrl,
    url: &RemoteUrl,
    task: &RemoteTask,
    budget: &Budget,
    introduction: &Introduction<'_>,
) -> Result<Head, FetchFailure> {
    let mut proxy = ProxyOptions::new();
    proxy.auto();
    let mut remote = repo.remote_anonymous(network.full())?;
    let mut connection = remote.connect_auth(
        Direction::Fetch,
        Some(callbacks(introduction, budget)),
        Some(proxy),
    )?;

    let branch = format!("refs/heads/{}", task.branch);
    let mut head = None;
    let mut has = Vec::new();
    for remote_head in connection.list()? {
        if remote_head.name() == branch {
            head = Some(remote_head.oid());
        } else if let Some(name) = remote_head.name().strip_prefix("refs/heads/")
            && has.len() < MAX_LISTED_BRANCHES
        {
            has.push(name.to_owned());
        }
    }
    let Some(head) = head else {
        return Err(FetchFailure::Known(missing(url, &task.branch, has)));
    };
    budget.announce(head);
    if task.previous() == Some(head) || !task.wants(head) || repo.odb()?.exists(head) {
        return Ok(Head {
            id: head,
            downloaded: false,
        });
    }

    let mut options = FetchOptions::new();
    options
        .remote_callbacks(callbacks(introduction, budget))
        .download_tags(AutotagOption::None)
        .follow_redirects(RemoteRedirect::Initial)
        .update_fetchhead(false);
    let refspec = format!("+{branch}:refs/remotes/origin/{}", task.branch);
    connection
        .remote()
        .download(&[refspec.as_str()], Some(&mut options))?;

    if repo.odb()?.exists(head) {
        Ok(Head {
            id: head,
            downloaded: true,
        })
    } else {
        let what = "the server did not send the commit it announced";
        Err(FetchFailure::Git(git2::Error::new(
            ErrorCode::NotFound,
            ErrorClass::Net,
            what,
        )))
    }
}

fn callbacks<'a>(introduction: &'a Introduction<'_>, budget: &'a Budget) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    callbacks.credentials(|asking, user, allowed| introduction.answer(asking, user, allowed));
    callbacks.transfer_progress(|progress| {
        budget.allows(
            progress.received_bytes() as u64,
            progress.total_objects() as u64,
        )
    });
    callbacks.sideband_progress(|_| budget.allows(0, 0));
    // No certificate callback is set: without one libgit2 requires a valid chain or a known_hosts
    // line.
    callbacks
}

/// Answers libgit2's requests for credentials. libgit2 repeats a request while the server refuses
/// the credentials: each kind is offered once.
struct Introduction<'a> {
    url: &'a NetworkUrl,
    credentials: Option<&'a Credentials>,
    user_given: Cell<bool>,
    secret_given: Cell<bool>,
    refused: RefCell<Option<String>>,
}

impl<'a> Introduction<'a> {
    fn new(url: &'a NetworkUrl, credentials: Option<&'a Credentials>) -> Self {
        Self {
            url,
            credentials,
            user_given: Cell::new(false),
            secret_given: Cell::new(false),
            refused: RefCell::new(None),
        }
    }

    fn answer(
        &self,
        asking: &str,
        user: Option<&str>,
        allowed: CredentialType,
    ) -> Result<Cred, git2::Error> {
        if !self.url.is_same_server(asking) {
            return Err(self.refuse("it redirects to another server, which gets no credentials"));
        }

        // For ssh libgit2 requests the name of the user first, if the URL has none.
        let user = user.unwrap_or(DEFAULT_USER);
        if allowed.contains(CredentialType::USERNAME) {
            return if self.user_given.replace(true) {
                Err(self.refuse("the server does not know the user"))
            } else {
                Cred::username(user)
            };
        }

        let Some(credentials) = self.credentials else {
            return Err(self.refuse("it requires credentials, and none are configured"));
        };
        if self.secret_given.replace(true) {
            return Err(self.refuse("the server did not accept them"));
        }
        let password = allowed.contains(CredentialType::USER_PASS_PLAINTEXT);
        let key = allowed.contains(CredentialType::SSH_KEY);
        match credentials {
            Credentials::Token(token) if password => Cred::userpass_plaintext(user, token.reveal()),
            Credentials::Basic {
                user,
                password: secret,
            } if password => Cred::userpass_plaintext(user, secret.reveal()),
            Credentials::SshKey(private_key) if key => {
                Cred::ssh_key_from_memory(user, None, private_key.reveal(), None)
            }
            _ => Err(self.refuse("it requires another type of credentials than is configured")),
        }
    }

    fn refuse(&self, detail: &str) -> git2::Error {
        *self.refused.borrow_mut() = Some(detail.to_owned());
        git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, detail)
    }
}
