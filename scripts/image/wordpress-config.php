<?php
// Debian's wp-config.php reads this file whatever the host's name is.
function windlass_env($name, $default) {
    $value = getenv($name);
    return $value === false ? $default : $value;
}
define('DB_HOST', windlass_env('WORDPRESS_DB_HOST', 'mysql'));
define('DB_USER', windlass_env('WORDPRESS_DB_USER', 'wordpress'));
define('DB_PASSWORD', windlass_env('WORDPRESS_DB_PASSWORD', ''));
define('DB_NAME', windlass_env('WORDPRESS_DB_NAME', 'wordpress'));
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY', 'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $name) {
    define($name, hash('sha256', $name . windlass_env('WORDPRESS_' . $name, DB_PASSWORD)));
}
